"""A device over adb: commands, files in and out, and a folder there that goes again.

Nothing of the user's passes the device's shell: names of files there are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tfedge.errors import InputError, TargetError
from tfedge.shell import Finished, run
from tfedge.targets import conditions

SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_TEMP = "/data/local/tmp"
_FOLDER = re.compile(rf"{_TEMP}/tfedge-[A-Za-z0-9]+")
_EXIT = re.compile(rb"tfedge-exit:(\d+)\s*\Z")
_QUICK_S, _COPY_S, _LOOK_S = 60.0, 600.0, 5
_BEAT_S = 5.0
_FULL = ("No space left", "not enough space", "ENOSPC")


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        serial: What `adb devices` calls it.
    """

    serial: str

    @property
    def name(self) -> str:
        """The target's name, for messages."""
        return f"adb:{self.serial}"

    def _adb(self, words: list[str], timeout: float, hold: float | None = None) -> Finished:
        try:
            return run(["adb", "-s", self.serial, *words], timeout=timeout, hold=hold)
        except InputError as error:
            fix = "Install Android's platform-tools, with adb on PATH"
            raise TargetError("adb cannot be started", error.found, fix) from error

    def require(self) -> None:
        """Finds out whether the device is there.

        Raises:
            TargetError: It is not; the message says what adb says.
        """
        state = self._adb(["get-state"], _QUICK_S)
        said = (state.out + state.err).decode("utf-8", "replace").strip()
        if state.code or state.out.strip() != b"device":
            fix = "Look at: adb devices"
            if "unauthorized" in said:
                fix = "Allow this computer on the device's screen"
            what = f"adb:{self.serial} cannot be reached"
            raise TargetError(what, said.splitlines()[-1] if said else state.ending, fix)

    def shell(self, command: str, timeout: float = _QUICK_S, hold: float | None = None) -> Finished:
        """Runs a command line of the device's shell, made of constants, numbers and our own paths.

        Args:
            command: The line.
            timeout: Seconds that it may take.
            hold: Keeps its input open with a line each so many seconds; None gives it none.

        Returns:
            Its exit status and output; both streams together in `out` where the device's adb is
            old.

        Raises:
            TargetError: The device is gone, or the command did not end in time.
        """
        try:
            ended = self._adb(["shell", f"{command}; echo tfedge-exit:$?"], timeout, hold)
        except TargetError as error:
            if "did not end" in error.what:
                what = f"adb:{self.serial} did not answer within {timeout:g} s"
                raise TargetError(what, error.found) from error
            raise
        # Old devices lose the exit status on the way; the line tells also that all has come.
        status = _EXIT.search(ended.out)
        if status is None:
            said = ended.error_text.strip().splitlines()
            fix = "The device removes its files itself; try again"
            found = said[-1] if said else ended.ending
            raise TargetError(f"the connection to adb:{self.serial} was lost", found, fix)
        return Finished(int(status[1]), ended.out[: status.start()], ended.err)

    def run_in(self, place: str, program: str, timeout: float) -> Finished:
        """Runs a program of a folder on the device; it ends when the connection does.

        Args:
            place: The folder, of `folder`.
            program: The program's command line, relative to the folder.
            timeout: Seconds that it may take.

        Returns:
            Its exit status, and both its streams in `out`.

        Raises:
            TargetError: The device is gone, or the program did not end in time.
        """
        # The input ends with the connection: then the program and the folder go.
        guard = f"(while read -r _; do :; done <&3; kill -9 $p; rm -rf {place}) >/dev/null 2>&1 &"
        command = (
            f"exec 3<&0; cd {place} && {{ {program} </dev/null 2>&1 & p=$!; {guard} w=$!; "
            "wait $p; s=$?; kill $w; (exit $s); }"
        )
        return self.shell(command, timeout, hold=_BEAT_S)

    def text(self, command: str) -> str:
        """What a command says, stripped; "" where it fails."""
        ended = self.shell(command)
        return "" if ended.code else ended.out.decode("utf-8", "replace").strip()

    def push(self, here: Path, there: str) -> None:
        """Copies a file to the device.

        Raises:
            TargetError: It has no room, or is gone.
        """
        ended = self._adb(["push", str(here.absolute()), there], _COPY_S)
        if ended.code:
            self._refused(ended, "cannot take the files")

    def pull(self, there: str, here: Path) -> bool:
        """Copies a file from the device; False where it is not there."""
        return self._adb(["pull", there, str(here.absolute())], _COPY_S).code == 0

    def _refused(self, ended: Finished, what: str) -> None:
        said = (ended.out + ended.err).decode("utf-8", "replace").strip().splitlines()
        found = said[-1] if said else ended.ending
        fix = f"Make room in {_TEMP}" if any(w in found for w in _FULL) else "Look at: adb devices"
        raise TargetError(f"adb:{self.serial} {what}", found, fix)

    @contextmanager
    def folder(self, life_s: float) -> Iterator[str]:
        """A new folder on the device, removed at the end.

        A process there removes it too: when it finds the folder gone, it ends; and when `life_s`
        are over, because we could not.

        Args:
            life_s: Seconds that it may be there at most.
        """
        looks = int(life_s / _LOOK_S) + 1
        watch = f'while [ -d "$d" ] && [ $n -lt {looks} ]; do sleep {_LOOK_S}; n=$((n+1)); done'
        ended = self.shell(
            f"d=$(mktemp -d {_TEMP}/tfedge-XXXXXXXX) && "
            f"{{ (trap '' HUP; n=0; {watch}; rm -rf \"$d\") </dev/null >/dev/null 2>&1 & "
            'echo "$d"; }'
        )
        place = ended.out.decode("utf-8", "replace").strip()
        if ended.code or not _FOLDER.fullmatch(place):
            self._refused(ended, "has no room for a folder")
        try:
            yield place
        finally:
            self._remove(place)

    def _remove(self, place: str) -> None:
        try:
            self.shell(f"rm -rf {place}")
        except TargetError:
            # It is gone, and removes the folder itself; what ended us matters more.
            return

    def conditions(self) -> dict[str, str]:
        """Files of `tfedge.targets.conditions` as they are on the device."""
        globs = " ".join(f"/{pattern}" for pattern in conditions.PATTERNS)
        script = (
            f'for f in {globs}; do [ -r "$f" ] && echo "$f $(cat "$f" 2>/dev/null)"; done; true'
        )
        pairs = [line.partition(" ") for line in self.text(script).splitlines()]
        return {path.lstrip("/"): value.strip() for path, _, value in pairs if value.strip()}

    def load(self) -> float:
        """Mean number of processes running or waiting in the last minute; NaN where unknown."""
        first = self.text("cat /proc/loadavg").partition(" ")[0]
        return float(first) if re.fullmatch(r"[0-9.]+", first) else float("nan")
