"""The command line: `tfedge COMMAND --flag=value ...`. One module a command."""
