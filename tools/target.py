"""The same as `tfedge target ... ...`, from a checkout."""

import sys

sys.path[0] = __file__.rpartition("tools")[0]  # the checkout; modules here would hide Python's own

from tfedge.cli.main import command_main  # noqa: E402

sys.exit(command_main("target"))
