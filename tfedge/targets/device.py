"""Devices: targets with a name and settings of their own, each in a YAML file.

    name: pi4                    # the file's name where it is left out
    target: sim:cortex-a72       # what --target takes, but for another device file
    threads: 1                   # where neither command nor recipe says how many
    description: Raspberry Pi 4, estimated
    options: {clock_ghz: 1.8}    # settings of the target

The path of such a file stands wherever a target's name does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfedge.errors import InputError, TargetError, TfedgeError, did_you_mean
from tfedge.recipe import read_yaml
from tfedge.record import Timing
from tfedge.targets.base import (
    DEVICE_SUFFIXES,
    Counter,
    Profiler,
    Target,
    Violation,
    get_target,
)
from tfedge.tflite.op_times import OpTimes

if TYPE_CHECKING:
    from tfedge.targets.arm64.costs import Costs
    from tfedge.targets.op_table import OpTable

FOLDER = Path("configs/targets")
"""Where `tfedge target list` looks for device files; any other path serves as well."""

_OWN = ("source",)
_SHOWN = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class DeviceSpec:
    """What a device file says.

    Attributes:
        name: What tables and records call the device.
        target: Name of a target.
        threads: Threads of the runtime where the caller gives none; None leaves it at 1.
        description: A line for `tfedge target list`.
        options: Settings of the target by name: what its class has defaults for.
    """

    name: str
    target: str
    threads: int | None = None
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("name", "target", "description"):
            value = getattr(self, key)
            if not isinstance(value, str) or not (value or key == "description"):
                raise InputError(f"{key} must be text", repr(value))
        if is_device_file(self.target):
            fix = "Name the target itself"
            raise InputError("a device's target cannot be another device", self.target, fix)
        whole = isinstance(self.threads, int) and not isinstance(self.threads, bool)
        if self.threads is not None and not (whole and self.threads >= 1):
            raise InputError("threads must be a whole number, at least 1", repr(self.threads))
        if not isinstance(self.options, Mapping):
            fix = "For example: options: {timeout_s: 600}"
            raise InputError("options must be a mapping", repr(self.options), fix)

    def make(self) -> Device:
        """The device.

        Raises:
            InputError: An option that the target does not have, or of the wrong type.
            TargetError: There is no such target, or it refuses an option's value.
        """
        place = _with_options(get_target(self.target), self.options)
        return kind_of(place)(self.name, place, self.threads, self.description)


@dataclass(frozen=True)
class Device:
    """A target under a device's name; see `tfedge.targets.base.Target` for its methods.

    Attributes:
        name: The device's name.
        place: The target behind it.
        threads: Threads where the caller gives none, or None.
        description: What the file says of it.
    """

    name: str
    place: Target
    threads: int | None = None
    description: str = ""

    @property
    def source(self) -> str:
        """Kind of its numbers."""
        return self.place.source

    def prepare(self, threads: int = 1) -> None:
        """As the target does."""
        self.place.prepare(threads)

    def check(self, data: bytes) -> list[Violation]:
        """As the target does."""
        return self.place.check(data)

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As the target does."""
        return self.place.run(data, inputs)

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """As the target does, under the device's name."""
        found = self.place.time(models, runs, threads)
        return [dataclasses.replace(timing, target=self.name) for timing in found]


class CountingDevice(Device):
    """A device whose target counts what ops cost."""

    place: Any

    def costs(self, data: bytes) -> Costs | OpTable:
        """As the target does, under the device's name."""
        found: Costs | OpTable = self.place.costs(data)
        return dataclasses.replace(found, target=self.name)


class ProfilingDevice(Device):
    """A device whose target times ops."""

    place: Any

    def profile(self, data: bytes, runs: int = 8) -> OpTimes:
        """As the target does."""
        found: OpTimes = self.place.profile(data, runs)
        return found


class CountingProfilingDevice(CountingDevice, ProfilingDevice):
    """A device whose target does both."""


def kind_of(place: Target) -> type[Device]:
    """The class of devices that can do what a target can."""
    kinds = {
        (True, True): CountingProfilingDevice,
        (True, False): CountingDevice,
        (False, True): ProfilingDevice,
    }
    return kinds.get((isinstance(place, Counter), isinstance(place, Profiler)), Device)


def behind(place: Target) -> Target:
    """The target itself, where it may be a device."""
    return place.place if isinstance(place, Device) else place


def threads_on(place: Target, given: int | None) -> int:
    """Threads to use on a target: those given, else the device's, else 1."""
    own = place.threads if isinstance(place, Device) else None
    return given or own or 1


def is_device_file(name: str) -> bool:
    """True for a name that stands for a file instead of a target."""
    return name.endswith(DEVICE_SUFFIXES)


def open_device(path: str | Path) -> Device:
    """Reads a device file and makes the device.

    Raises:
        InputError: As `load`; or an option that the target does not have, or of the wrong type.
        TargetError: There is no such file, or no such target.
    """
    spec = load(path)
    try:
        return spec.make()
    except TfedgeError as error:
        kind = InputError if isinstance(error, InputError) else TargetError
        raise kind(f"{Path(path).name}: {error.what}", error.found, error.fix) from None


def load(path: str | Path) -> DeviceSpec:
    """Reads a device file.

    Args:
        path: The file.

    Raises:
        TargetError: There is no such file; the message names the nearest in its folder.
        InputError: It is not YAML, or no device: an unknown key, a missing one, a bad value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        near = [str(other) for other in files_in(path.parent)]
        fix = did_you_mean(str(path), near) if near else ""
        raise TargetError("cannot read the device file", f"{path}: {why}", fix) from None
    try:
        return from_dict(read_yaml(text, "the device file"), path.stem)
    except TfedgeError as error:
        raise InputError(f"{path.name}: {error.what}", error.found, error.fix) from None


def from_dict(value: Any, name: str) -> DeviceSpec:
    """Builds a spec from plain data.

    Args:
        value: A mapping with the keys of `DeviceSpec`; `target` is required.
        name: The device's name where the data has none.

    Raises:
        InputError: An unknown key, a missing one, a bad value.
    """
    known = [f.name for f in dataclasses.fields(DeviceSpec)]
    if not isinstance(value, Mapping):
        fix = "For example: target: sim:cortex-a72"
        raise InputError("a device is a mapping of keys", type(value).__name__, fix)
    for key in value:
        if key not in known:
            raise InputError(f"unknown key '{key}'", "", did_you_mean(str(key), known))
    if "target" not in value:
        fix = "For example: target: sim:cortex-a72"
        raise InputError("the device has no 'target'", ", ".join(map(str, value)), fix)
    given = {key: v for key, v in value.items() if v is not None}
    return DeviceSpec(**{"name": name, **given})


def files_in(folder: Path = FOLDER) -> list[Path]:
    """The device files of a folder, by name; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix in DEVICE_SUFFIXES and p.is_file())


def texts(names: Iterable[str]) -> dict[str, str]:
    """What the device files among some target names say, for what depends on it.

    Raises:
        TargetError: One cannot be read.
    """
    return {name: repr(load(name)) for name in names if is_device_file(name)}


def _with_options(place: Target, options: Mapping[str, Any]) -> Target:
    if not options:
        return place
    known = _options(place)
    for key, value in options.items():
        if key not in known:
            found = f"'{key}'"
            fix = did_you_mean(str(key), known) if known else "Leave the options out"
            raise InputError(f"the target {place.name} has no such option", found, fix)
        wanted = type(known[key])
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise InputError(f"the option {key} must be {_SHOWN[wanted]}", repr(value))
    changed: Target = dataclasses.replace(place, **options)  # type: ignore[type-var]
    return changed


def _options(place: Target) -> dict[str, Any]:
    """Settings that a target has defaults for, with these."""
    if not dataclasses.is_dataclass(place):
        return {}
    return {
        f.name: f.default
        for f in dataclasses.fields(place)
        if f.init and type(f.default) in _SHOWN and f.name not in _OWN and f.name[0] != "_"
    }
