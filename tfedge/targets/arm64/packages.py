"""Debian packages without root and without touching the system's own package state.

One suite serves all hosts, so that all get the same versions: the one whose `qemu-user` can load
plugins. It comes from the mirror that the host itself uses, checked by the host's own keys.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tfedge.errors import TargetError
from tfedge.shell import Finished, run

SUITE = "bookworm"
EMULATOR = (
    "qemu-user", "tcc", "libc6", "libgcc-s1", "libcapstone4", "libglib2.0-0", "libpcre2-8-0",
    "libffi8", "zlib1g", "libgnutls30", "libgmp10", "libnettle8", "libhogweed6", "libunistring2",
    "libidn2-0", "libp11-kit0", "libtasn1-6", "libnuma1", "liburing2",
)  # fmt: skip
"""amd64: the emulator with its libraries, and a small C compiler for its plugin."""

SYSTEM = ("libc6", "libc6-dev", "libgcc-s1", "libstdc++6", "tcc")
"""arm64: what the runtime needs, and the same compiler for the program that drives it."""

_SOURCES = Path("/etc/apt")
_DEBIAN = re.compile(
    r"(bullseye|bookworm|trixie|forky|duke|sid|(old)*stable|testing|unstable)(-updates|-backports)?"
)
_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.+)"
)
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Mirror:
    """An archive that the system trusts.

    Attributes:
        uri: Its address, as the system's sources have it.
        signed_by: Key file or inline key that they name for it, or "".
        trusted: Their word on unsigned archives ("yes"), or "".
    """

    uri: str
    signed_by: str = ""
    trusted: str = ""

    @property
    def stanza(self) -> str:
        """The entry for `SUITE`, in the deb822 form."""
        lines = ["Types: deb", f"URIs: {self.uri}", f"Suites: {SUITE}", "Components: main"]
        lines += [f"Signed-By: {self.signed_by}"] if self.signed_by else []
        lines += [f"Trusted: {self.trusted}"] if self.trusted else []
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Package:
    """A package that was fetched.

    Attributes:
        name: Its name.
        version: Its version.
        architecture: "amd64" or "arm64".
        sha256: Of the whole file, hexadecimal.
        bytes: Size of the file.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    bytes: int


def mirrors(folder: Path = _SOURCES) -> list[Mirror]:
    """Archives of the system's sources that may hold `SUITE`, the likeliest first.

    Args:
        folder: The system's APT configuration.
    """
    found: dict[Mirror, int] = {}
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(errors="replace")
        entries = _stanzas(text) if path.suffix == ".sources" else _lines(text)
        for mirror, suite in entries:
            # Others call their suites alike; Debian's own archive ends like this.
            debian = mirror.uri.rstrip("/").endswith("debian")
            rank = 2 * (not debian) + (not suite.startswith(SUITE))
            found[mirror] = min(rank, found.get(mirror, rank))
    return sorted(found, key=found.__getitem__)


def _lines(text: str) -> Iterator[tuple[Mirror, str]]:
    for line in text.splitlines():
        match = _LINE.fullmatch(line.partition("#")[0].strip())
        if match and "main" in match["rest"].split() and _DEBIAN.fullmatch(match["suite"]):
            options = dict(o.split("=", 1) for o in (match["options"] or "").split() if "=" in o)
            named = Mirror(match["uri"], options.get("signed-by", ""), options.get("trusted", ""))
            if not named.uri.startswith("cdrom:"):
                yield named, match["suite"]


def _stanzas(text: str) -> Iterator[tuple[Mirror, str]]:
    for block in re.split(r"\n\s*\n", text):
        fields = _fields(block)
        if fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        suites = [s for s in fields.get("suites", "").split() if _DEBIAN.fullmatch(s)]
        if suites and "main" in fields.get("components", "").split():
            for uri in fields.get("uris", "").split():
                yield Mirror(uri, fields.get("signed-by", ""), fields.get("trusted", "")), suites[0]


def _fields(block: str) -> dict[str, str]:
    """Fields of a deb822 stanza by lower-case name; continued lines keep their indent."""
    fields: dict[str, str] = {}
    last = ""
    for line in block.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and last:
            fields[last] += f"\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()
    return fields


class Apt:
    """A private APT: its state, lists and cache lie in one folder.

    Args:
        folder: An empty folder of its own.
        mirror: Where the packages come from.
    """

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self._folder = folder
        for name in ("state/lists/partial", "cache/archives/partial", "sources.d"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.d" / "debian.sources").write_text(mirror.stanza)
        # The system's hooks after an update are for its own lists.
        (folder / "apt.conf").write_text(
            "#clear APT::Architectures;\n#clear APT::Update::Post-Invoke;\n"
            "#clear APT::Update::Post-Invoke-Success;\n"
            'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; "arm64"; };\n'
        )

    def update(self) -> None:
        """Fetches the package lists.

        Raises:
            TargetError: They cannot be fetched.
        """
        self._run("the package lists cannot be fetched", "update", self._folder)

    def download(self, names: tuple[str, ...], architecture: str, into: Path) -> list[Package]:
        """Fetches packages, whose hashes APT checks against the signed lists.

        Args:
            names: Packages.
            architecture: "amd64" or "arm64".
            into: An existing folder for the .deb files.

        Raises:
            TargetError: They cannot be fetched.
        """
        wanted = [f"{name}:{architecture}" for name in names]
        self._run("the packages cannot be fetched", "download", into, *wanted)
        return [_package(path) for path in sorted(into.glob("*.deb"))]

    def _run(self, what: str, command: str, cwd: Path, *words: str) -> None:
        f = self._folder
        settings = {
            "Dir::State": f / "state", "Dir::State::Lists": f / "state/lists",
            "Dir::State::status": f / "status", "Dir::Cache": f / "cache",
            "Dir::Etc::SourceList": "/dev/null", "Dir::Etc::SourceParts": f / "sources.d",
            "Dir::Etc::Preferences": "/dev/null", "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "3", "Acquire::Languages": "none",
        }  # fmt: skip
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        argv = ["apt-get", "-q", "-c", str(f / "apt.conf"), *options, command, *words]
        ended = run(argv, cwd=cwd, timeout=_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"})
        if ended.code:
            raise TargetError(what, _said(ended), "Check the network and the system's APT sources")


def _said(ended: Finished) -> str:
    lines = [line for line in ended.error_text.splitlines() if line.startswith(("E:", "W:", "Err"))]
    return "; ".join(line[2:].strip() for line in lines[:2]) or ended.ending


def _package(path: Path) -> Package:
    name, version, architecture = path.stem.split("_")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Package(name, unquote(version), architecture, digest, len(data))


def unpack(debs: Path, into: Path) -> None:
    """Unpacks all packages of a folder, without running anything of theirs.

    Raises:
        TargetError: One is damaged.
    """
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(debs.glob("*.deb")):
        ended = run(["dpkg-deb", "-x", path, into], timeout=_TIMEOUT_S)
        if ended.code:
            found = ended.error_text.strip() or ended.ending
            raise TargetError(f"{path.name} cannot be unpacked", found, "Run the set-up again")
