"""Lists the targets, and makes or removes what one needs.

    tfedge target list
    tfedge target setup arm64
    tfedge target remove arm64
    tfedge target setup ssh:USER@HOST

The list has the targets, the families of targets with names of their own ("ssh:..."), and the
device files of configs/targets. The arm64 targets run real aarch64 kernels under an emulator and
count instructions; the sim targets estimate times from these counts. Their set-up needs Debian on
x86_64 and no root: it fetches Debian's packages and the runtime's aarch64 wheel into
$TFEDGE_ARM64, or tfedge/arm64 in the user's cache folder.

A board needs Python 3.10 or later, numpy and LiteRT. Its set-up brings their wheels, of pip's index
or of the folder $TFEDGE_WHEELS, into the cache folder of its user; remove takes them away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfedge.cli.output import check_folder, show, write_json
from tfedge.errors import InputError, TfedgeError, did_you_mean

REQUIRED = ()
FREE = {
    "ssh:USER@HOST": (
        "measured", "any Linux board with a login by key; tfedge target setup ssh:USER@HOST",
    ),
    "adb:SERIAL": ("measured", "any Android device; needs adb and $TFEDGE_BENCHMARK_MODEL"),
    "ethosu:NPU:SYSTEM:MODE": ("simulated", "other systems and memory modes; docs/TARGETS.md"),
}  # fmt: skip
"""How targets of free names are written, with their source, and what they need."""

ACTIONS = ("list", "setup", "remove")
KINDS = ("arm64",)
BOARD = "ssh:"


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_list("do", [], "What to do (or as the arguments).", flag_values=values)
    flags.DEFINE_string(
        "json", None, "Write the result here; - for standard output.", flag_values=values
    )


def take_rest(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Takes the action and its target as arguments."""
    values.do = list(rest)


def run(values: flags.FlagValues) -> None:
    """Does it, and says what was done."""
    action, *rest = values.do or ["list"]
    if action not in ACTIONS:
        raise InputError("unknown action", f"'{action}'", did_you_mean(action, ACTIONS))
    wanted = 0 if action == "list" else 1
    known = all(kind in KINDS or kind.startswith(BOARD) for kind in rest)
    if len(rest) != wanted or not known:
        found = " ".join(values.do)
        fix = f"Write: tfedge target {action}" + (" arm64, or ssh:USER@HOST" if wanted else "")
        raise InputError(f"target {action} takes {'a target' if wanted else 'nothing else'}",
                         found, fix)  # fmt: skip
    check_folder(values.json)
    if rest and rest[0].startswith(BOARD):
        result, text = {"setup": _set_up_board, "remove": _remove_board}[action](rest[0])
    else:
        result, text = {"list": _list, "setup": _set_up, "remove": _remove}[action]()
    write_json(values.json, result)
    show(text, values.json)


def _list() -> tuple[Any, Any]:
    from rich.console import Group

    from tfedge.report.table import plain_table
    from tfedge.targets import TARGETS, device, get_target
    from tfedge.targets.arm64 import installation
    from tfedge.targets.extras import PACKAGES, state
    from tfedge.targets.machine import isa

    states = dict.fromkeys(("arm64", "sim"), installation.state())
    states |= {extra: state(extra) for extra in PACKAGES}
    states["host:amx"] = "ready" if "amx_int8" in isa() else "this machine has no AMX"
    rows = [
        {
            "target": name,
            "source": get_target(name).source,
            "state": states.get(name, states.get(name.partition(":")[0], "ready")),
        }
        for name in TARGETS
    ]
    rows += [{"target": n, "source": s, "state": state} for n, (s, state) in FREE.items()]
    table = plain_table("", ["target", "source", "state"], [list(row.values()) for row in rows])
    devices = [_device(path) for path in device.files_in()]
    cells = [list(row.values()) for row in devices]
    header = ["device file", "target", "description"]
    shown = plain_table("", header, cells) if cells else ""
    return [*rows, *devices], Group(table, shown, _DEVICES.format(folder=device.FOLDER))


_DEVICES = (
    "Devices of your own: YAML files (target: ..., threads, description, options) in {folder} or\n"
    "anywhere else; --target takes their paths."
)


def _device(path: Path) -> dict[str, str]:
    """A line about a device file, also where it is wrong."""
    from tfedge.targets import device

    try:
        spec = device.load(path)
    except TfedgeError as error:
        return {"device": str(path), "target": "", "description": str(error)}
    return {"device": str(path), "target": spec.target, "description": spec.description}


def _set_up() -> tuple[Any, str]:
    from tfedge.targets.arm64 import installation

    found, made = installation.set_up()
    facts = {"folder": str(found.folder), "made": made, **found.manifest}
    seconds = found.manifest["seconds"]
    size = sum(package["bytes"] for package in found.manifest["packages"]) / 1e6
    what = f"{len(found.manifest['packages'])} packages, {size:.0f} MB, LiteRT "
    what += str(found.manifest["runtime"])
    done = f"made in {seconds:g} s" if made else "was there; its files are intact"
    return facts, f"arm64 {done}: {found.folder} ({what})"


def _remove() -> tuple[Any, str]:
    from tfedge.targets.arm64 import installation

    place, removed = str(installation.folder()), installation.remove()
    facts = {"folder": place, "removed": removed}
    return facts, f"removed {place}" if removed else f"there was nothing at {place}"


def _set_up_board(name: str) -> tuple[Any, str]:
    from tfedge.targets.ssh.setup import set_up
    from tfedge.targets.ssh.target import SshTarget

    facts = set_up(SshTarget.named(name.removeprefix(BOARD)))
    if not facts["made"]:
        return facts, f"{name} has all it needs"
    return facts, f"{name} is set up: {', '.join(facts['wheels'])} in {facts['place']}"


def _remove_board(name: str) -> tuple[Any, str]:
    from tfedge.targets.ssh.setup import remove
    from tfedge.targets.ssh.target import SshTarget

    facts = remove(SshTarget.named(name.removeprefix(BOARD)))
    place = f"{facts['place']} on {name}"
    return facts, f"removed {place}" if facts["removed"] else f"there was nothing at {place}"
