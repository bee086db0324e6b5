"""The emulator's folder: how it is made, checked and removed.

It is built beside its place and renamed at the end, so that it is there as a whole or not at all.
`manifest.json` in it has the version and SHA-256 of every package, and of every file that takes
part in a count.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tfedge.errors import TargetError
from tfedge.progress import working
from tfedge.shell import run
from tfedge.targets.arm64 import packages
from tfedge.targets.arm64.cpus import CPUS, write_view
from tfedge.tflite.interpreter import runtime_version

COMMAND = "tfedge target setup arm64"
_MANIFEST, _SOURCES = "manifest.json", ("classes.h", "mix.c", "runner.c")
_HOST, _GUEST, _VIEWS = "host", "guest", "views"
_PLUGIN, _RUNNER, _LIBRARY = "mix.so", "runner", "libLiteRt.so"
_QEMU, _TCC = "usr/bin/qemu-aarch64", "usr/bin/tcc"
_LOADER = "lib64/ld-linux-x86-64.so.2"
_KEPT = ("lib", "lib64", "usr/lib", _QEMU, _TCC)
_WHEEL = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64",
          "manylinux_2_28_aarch64", "manylinux_2_34_aarch64")  # fmt: skip
_PYTHON, _ABI = "3.11", "cp311"
_BUILD_CPU = "cortex-a53"
_TIMEOUT_S = 600.0
_ELSEWHERE = "Set TFEDGE_ARM64 to another folder"
_LEFTOVER_S = 24 * 3600.0


def folder() -> Path:
    """Where the emulator is: $TFEDGE_ARM64, or tfedge/arm64 in the user's cache folder."""
    own = os.environ.get("TFEDGE_ARM64")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own).expanduser() if own else Path(cache) / "tfedge" / "arm64").absolute()


@dataclass(frozen=True)
class Installation:
    """A set-up that is complete.

    Attributes:
        folder: Where it is.
        manifest: What it was made of: "runtime", "packages", "wheel", "files", "seconds".
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def plugin(self) -> Path:
        """The counting plugin."""
        return self.folder / _PLUGIN

    @property
    def library(self) -> Path:
        """The runtime's aarch64 library."""
        return self.folder / _LIBRARY

    @property
    def runner(self) -> Path:
        """The aarch64 program that drives it."""
        return self.folder / _RUNNER

    def emulator(self, cpu: str) -> list[str]:
        """The command that runs an aarch64 program as on a CPU; its arguments follow."""
        return _emulator(self.folder, cpu)


def _on_host(root: Path, program: str) -> list[str]:
    """Runs an unpacked amd64 program with its own libraries, not the host's."""
    host = root / _HOST
    libraries = ":".join(str(host / p / "x86_64-linux-gnu") for p in ("lib", "usr/lib"))
    loader = [str(host / _LOADER), "--inhibit-cache", "--library-path", libraries]
    return [*loader, str(host / program)]


def _emulator(root: Path, cpu: str) -> list[str]:
    view = str(root / _VIEWS / cpu)
    # The host's LD_LIBRARY_PATH is not the guest's; the seed fixes what programs take for random.
    return [*_on_host(root, _QEMU), "-cpu", cpu, "-L", view, "-seed", "1", "-U", "LD_LIBRARY_PATH"]


def problem() -> str:
    """Why the set-up cannot be made on this machine, with what it needs; "" where it can."""
    if not (sys.platform.startswith("linux") and platform.machine() == "x86_64"):
        return f"it needs Linux on x86_64; this is {platform.system()} on {platform.machine()}"
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if missing:
        return f"it needs Debian's {' and '.join(missing)}, not found on PATH"
    if not packages.mirrors():
        return "it needs Debian 11 or later, with Debian's archive among the system's APT sources"
    if find_spec("pip") is None:
        return "it needs pip in this Python, to fetch the aarch64 runtime"
    return ""


def find() -> Installation:
    """The set-up of this version of tfedge and of the runtime.

    Raises:
        TargetError: There is none; the message says how to make it, or what that needs.
    """
    place = folder()
    manifest = _read(place)
    if manifest is not None and manifest.get("key") == _key():
        return Installation(place, manifest)
    why = problem()
    fix = f"Run: {COMMAND}" if not why else f"It cannot be made here: {why}"
    stale = "the one there was made by another version" if manifest is not None else "nothing there"
    raise TargetError("the arm64 emulator is not set up", f"{place}: {stale}", fix)


def state() -> str:
    """One line about the set-up: "ready (...)", "not set up", or why it is not possible."""
    try:
        found = find()
    except TargetError as error:
        return error.fix if problem() else f"not set up; run: {COMMAND}"
    return f"ready ({found.folder}; LiteRT {found.manifest['runtime']})"


def set_up() -> tuple[Installation, bool]:
    """Makes the set-up, or verifies the one that is there.

    Returns:
        The installation, and whether it was made now. A set-up whose files differ from its
        manifest, or that another version made, is made anew.

    Raises:
        TargetError: It cannot be made; the message says what is needed.
    """
    found = _there()
    if found is not None:
        return found, False
    why = problem()
    if why:
        raise TargetError("the arm64 emulator cannot be set up", why)
    place = folder()
    if ":" in str(place):  # It divides the folders of a library path.
        raise TargetError("the emulator's folder may hold no colon", str(place), _ELSEWHERE)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        building = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        what = "the emulator's folder cannot be made"
        raise TargetError(what, str(error), _ELSEWHERE) from error
    try:
        manifest = _build(building)
        found = _there()
        if found is not None:  # Another process made it meanwhile, and may be using it.
            return found, False
        _replace(building, place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Installation(place, manifest), True


def remove() -> bool:
    """Removes the set-up; False where there was none.

    Raises:
        TargetError: The folder holds something else.
    """
    place = folder()
    if not place.exists():
        return False
    if _read(place) is None:
        raise TargetError("this folder is no emulator of tfedge's", str(place), "Remove it by hand")
    shutil.rmtree(place)
    return True


def _read(place: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((place / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _key() -> str:
    """Stands for all that a set-up is made from: another key needs another set-up."""
    parts = [(Path(__file__).parent / name).read_bytes() for name in _SOURCES]
    wanted = (packages.SUITE, packages.EMULATOR, packages.SYSTEM, *CPUS.values())
    parts += [repr(wanted).encode()]
    parts += [runtime_version().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _there() -> Installation | None:
    """The set-up, where it is there and its files are those of its manifest."""
    try:
        found = find()
    except TargetError:
        return None
    files = found.manifest["files"]
    intact = all(_sha256(found.folder / name) == digest for name, digest in files.items())
    return found if intact else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _sweep(place: Path) -> None:
    """Removes what set-ups left that were killed a day ago or earlier."""
    for path in place.parent.glob(f".{place.name}-*"):
        if time.time() - path.stat().st_mtime > _LEFTOVER_S:
            shutil.rmtree(path, ignore_errors=True)


def _replace(building: Path, place: Path) -> None:
    if place.exists() and _read(place) is None and any(place.iterdir()):
        found = "something that tfedge did not make"
        raise TargetError(f"the folder is taken: {place}", found, _ELSEWHERE)
    old = building.with_name(f"{building.name}-old")
    if place.exists():
        place.rename(old)
    building.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _build(root: Path) -> dict[str, Any]:
    begin = time.monotonic()
    fetched = _fetch_packages(root)
    with working("unpacking"):
        packages.unpack(root / "debs/amd64", root / "whole")
        for name in _KEPT:
            (root / _HOST / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "whole" / name).rename(root / _HOST / name)
        packages.unpack(root / "debs/arm64", root / _GUEST)
        shutil.rmtree(root / "whole")
        shutil.rmtree(root / "debs")
    with working(f"fetching LiteRT {runtime_version()} for aarch64"):
        wheel = _fetch_runtime(root)
    with working("building the counter and the program that drives the runtime"):
        for cpu in CPUS.values():
            write_view(root / _VIEWS / cpu.name, cpu, root / _GUEST)
        _compile(root)
    counted = [_PLUGIN, _RUNNER, _LIBRARY, f"{_HOST}/{_QEMU}"]
    counted += [f"{_VIEWS}/{name}/proc/cpuinfo" for name in CPUS]
    libraries = sorted((root / _GUEST / "lib/aarch64-linux-gnu").glob("*.so*"))
    counted += [str(p.relative_to(root)) for p in libraries if not p.is_symlink()]
    manifest = {
        "key": _key(),
        "runtime": runtime_version(),
        "packages": fetched,
        "wheel": wheel,
        "files": {name: _sha256(root / name) for name in counted},
        "seconds": round(time.monotonic() - begin, 1),
    }
    (root / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _fetch_packages(root: Path) -> list[dict[str, Any]]:
    """From the first of the system's archives that has them all."""
    failures = []
    for number, mirror in enumerate(packages.mirrors()):
        private, debs = root / f"apt{number}", root / "debs"
        private.mkdir()
        shutil.rmtree(debs, ignore_errors=True)
        found = []
        try:
            with working("fetching Debian's package lists"):
                apt = packages.Apt(private, mirror)
                apt.update()
            with working(f"fetching {len(packages.EMULATOR) + len(packages.SYSTEM)} packages"):
                for names, kind in ((packages.EMULATOR, "amd64"), (packages.SYSTEM, "arm64")):
                    (debs / kind).mkdir(parents=True)
                    found += apt.download(names, kind, debs / kind)
        except TargetError as error:
            failures.append(error)
            continue
        finally:
            shutil.rmtree(private)
        return [asdict(package) for package in found]
    raise failures[0]


def _fetch_runtime(root: Path) -> dict[str, Any]:
    into = root / "wheel"
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
            "--python-version", _PYTHON, "--implementation", "cp", "--abi", _ABI]  # fmt: skip
    argv += [word for name in _WHEEL for word in ("--platform", name)]
    argv += ["--dest", str(into), f"ai-edge-litert=={runtime_version()}"]
    _do("the aarch64 runtime cannot be fetched", argv, root, "Check the network and pip's index")
    (path,) = into.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = [n for n in wheel.namelist() if Path(n).name == _LIBRARY]
        if not names:
            raise TargetError("the aarch64 runtime has no library", f"{path.name}: {_LIBRARY}")
        (root / _LIBRARY).write_bytes(wheel.read(names[0]))
    found = {"name": path.name, "sha256": _sha256(path), "bytes": path.stat().st_size}
    shutil.rmtree(into)
    return found


def _compile(root: Path) -> None:
    for name in _SOURCES:
        shutil.copyfile(Path(__file__).parent / name, root / name)
    host = root / _HOST / "usr/lib/x86_64-linux-gnu/tcc"
    what, fix = "the emulator's parts cannot be built", "Run the set-up again"
    argv = [*_on_host(root, _TCC), f"-B{host}", "-nostdlib", "-shared", "-o", _PLUGIN, "mix.c"]
    _do(what, argv, root, fix)
    argv = [*_emulator(root, _BUILD_CPU), str(root / _GUEST / _TCC)]
    # The runner's own clock must stand before the C library's, also for the runtime.
    argv += ["-B/usr/lib/aarch64-linux-gnu/tcc", "-rdynamic", "-o", _RUNNER, "runner.c"]
    _do(what, argv, root, fix)


def _do(what: str, argv: Sequence[str], cwd: Path, fix: str) -> None:
    ended = run(argv, cwd=cwd, timeout=_TIMEOUT_S)
    if ended.code:
        said = [line for line in ended.error_text.splitlines() if line.strip()]
        raise TargetError(what, "; ".join([ended.ending, *said[-1:]]), fix)
