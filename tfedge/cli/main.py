"""`tfedge`: finds the command, reads its flags, runs it, and turns errors into one line.

Exit status: 0 done; 1 an error that the line on standard error explains; 2 wrong flags; 130
interrupted. `--debug` shows the whole traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags

from tfedge._version import __version__
from tfedge.cli.guard import guarded
from tfedge.errors import InputError

# command -> its line in the list. The module is tfedge.cli.cmd_<command>, loaded on use.
COMMANDS: dict[str, str] = {
    "compress": "run a recipe: train, prune, distill, QAT, convert, verify, benchmark, report",
    "prune": "cut channels out of a model, without training",
    "distill": "train a model to answer like a larger one",
    "qat": "quantize-aware training",
    "convert": "write a TFLite file with its certificate",
    "allocate": "mixed precision: choose a scheme for each part within a budget",
    "verify": "compare a TFLite file with its Keras model, layer by layer",
    "benchmark": "measure TFLite files in pairs",
    "target": "list targets, set up or remove what one needs (emulated Arm cores)",
    "doctor": "say why a TFLite file is slow, and mend what can be mended",
    "inspect": "show a model's channel groups and costs, or a file's certificate",
}
# Commands that load Keras models.
WITH_MODELS = ("compress", "prune", "distill", "qat", "convert", "allocate", "verify", "inspect")
# Takes the place of the program name in `FlagValues`.
PROGRAM = "tfedge"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (`| head`); Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "-help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"tfedge {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"tfedge: error: {_unknown(name)}", file=sys.stderr)
        return 2
    return _run(importlib.import_module(f"tfedge.cli.cmd_{name}"), name, rest)


def command_main(name: str) -> int:
    """Entry of the launchers in tools/: one command with the process's arguments."""
    return main([name, *sys.argv[1:]])


def _overview() -> str:
    lines = ["tfedge: make Keras models small and fast, and prove that they are still right", ""]
    lines += ["usage: tfedge COMMAND --flag=value ...", ""]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "`tfedge COMMAND --help` lists the flags of a command."])


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    known = ", ".join(COMMANDS)
    return f"unknown command '{name}'. " + (
        f"Did you mean '{near[0]}'?" if near else f"Choose one of: {known}."
    )


def _run(module: ModuleType, name: str, arguments: Sequence[str]) -> int:
    """Reads the flags of a command and runs it."""
    values = flags.FlagValues()
    module.define(values)
    flags.DEFINE_boolean(
        "debug", False, "Show the whole traceback of an error.", flag_values=values
    )
    if name in WITH_MODELS:
        flags.DEFINE_multi_string(
            "code",
            [],
            "Module or .py file with the model's own layers and functions; may be given several "
            "times.",
            flag_values=values,
        )
    if any(a in ("--help", "-h", "-help") for a in arguments):
        print(_help(module, name, values))
        return 0
    values.set_gnu_getopt(True)
    try:
        left = values([PROGRAM, *arguments])[1:]
    except flags.Error as error:
        return _usage(name, " ".join(str(error).split()))
    if left and not hasattr(module, "take_rest"):
        return _usage(name, f"'{left[0]}' is not a flag; write --name=value")
    missing = [n for n in module.REQUIRED if values[n].value in (None, [])]
    if missing:
        return _usage(name, f"--{missing[0]} is missing")

    def command() -> int | None:
        if name in WITH_MODELS:
            _take_code(values.code)
        if left:
            module.take_rest(values, left)
        return module.run(values)

    return guarded(command, debug=values.debug)


def _take_code(names: Sequence[str]) -> None:
    """Makes the user's layers and functions known before models that hold them are loaded."""
    if not names:
        return
    from tfedge.bridge import register_code
    from tfedge.user_code import import_code

    for name in names:
        if not register_code(import_code(name, "the")):
            raise InputError("this module defines no layers or functions", f"'{name}'")


def _usage(name: str, text: str) -> int:
    text = text.replace(" ?", "?").rstrip(".")
    stop = "" if text.endswith("?") else "."
    print(f"tfedge: error: {text}{stop} See `tfedge {name} --help`.", file=sys.stderr)
    return 2


def _help(module: ModuleType, name: str, values: flags.FlagValues) -> str:
    """Only this command's flags, with their defaults."""
    lines = [f"usage: tfedge {name} --flag=value ...", "", (module.__doc__ or "").strip(), ""]
    own = [values[n] for n in values if not values[n].short_name == n]
    for flag in own:
        default = "" if flag.value is None or flag.value == [] else f"={flag.default_as_str}"
        lines.append(f"  --{flag.name}{default.replace(chr(39), '')}")
        lines.append(f"      {' '.join((flag.help or '').split())}")
    return "\n".join(lines)
