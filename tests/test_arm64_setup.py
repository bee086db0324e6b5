"""The emulator's set-up, with programs that only pretend to fetch and unpack."""

import hashlib
import json
import sys

import pytest

from tests import tflite_files
from tfedge.bench import measure
from tfedge.errors import TargetError
from tfedge.targets import get_target
from tfedge.targets.arm64 import installation, packages

APT = """
import pathlib, sys
words = [w for w in sys.argv[1:] if not w.startswith("-")]
log = pathlib.Path({log!r})
log.write_text(log.read_text() + " ".join(words[-30:]) + "\\n" if log.exists() else "first\\n")
if "download" in words:
    if pathlib.Path({fail!r}).exists():
        print("E: Unable to locate package qemu-user", file=sys.stderr)
        sys.exit(100)
    for name in words[words.index("download") + 1 :]:
        package, _, kind = name.partition(":")
        pathlib.Path(f"{{package}}_1%3a2.3-4_{{kind}}.deb").write_text(name)
"""
DPKG = """
import pathlib, sys
deb, into = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
kind = deb.stem.split("_")[2]
files = ["usr/bin/qemu-aarch64", "usr/bin/tcc", "lib64/ld-linux-x86-64.so.2", "usr/lib/a.so"]
files += ["lib/x86_64-linux-gnu/b.so", "usr/bin/qemu-alpha"]
if kind == "arm64":
    files = ["usr/bin/tcc", "lib/aarch64-linux-gnu/libc.so.6", "usr/lib/x"]
for name in files:
    path = into / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text({loader!r})
    path.chmod(0o755)
"""
LOADER = """#!{python} -IS
import pathlib, sys
made = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
made.write_text("built from " + sys.argv[-1])
"""
PIP = """
import pathlib, sys, zipfile
place = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
place.mkdir()
with zipfile.ZipFile(place / "ai_edge_litert-0-aarch64.whl", "w") as wheel:
    wheel.writestr("ai_edge_litert/libLiteRt.so", "library")
"""


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A machine whose apt, dpkg and pip write a few words instead of packages."""
    tools, python = tmp_path / "tools", sys.executable
    tools.mkdir()
    names = {"log": str(tmp_path / "log"), "fail": str(tmp_path / "fail")}
    scripts = {
        "apt-get": APT.format(**names),
        "dpkg-deb": DPKG.format(loader=LOADER.format(python=python)),
        "python": PIP,
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!{python} -IS\n{text}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("TFEDGE_ARM64", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache, it's"))
    monkeypatch.setattr(installation.sys, "executable", str(tools / "python"))
    monkeypatch.setattr(installation.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(installation.sys, "platform", "linux")
    monkeypatch.setattr(packages, "mirrors", lambda: [packages.Mirror("file:/debian")])
    return tmp_path


def calls(folder):
    return len((folder / "log").read_text().splitlines())


def test_the_set_up_is_made_once_and_its_manifest_tells_all(pretended):
    assert "setup arm64" in installation.state()
    found, made = installation.set_up()
    assert made and found.folder == pretended / "cache, it's" / "tfedge" / "arm64"
    manifest = json.loads((found.folder / "manifest.json").read_text())
    listed = {(p["name"], p["architecture"]): p for p in manifest["packages"]}
    assert len(listed) == len(packages.EMULATOR) + len(packages.SYSTEM)
    qemu = listed["qemu-user", "amd64"]
    assert qemu["version"] == "1:2.3-4"
    assert qemu["sha256"] == hashlib.sha256(b"qemu-user:amd64").hexdigest()
    assert manifest["wheel"]["name"].endswith("aarch64.whl") and manifest["runtime"]
    for name in ("mix.so", "runner", "libLiteRt.so", "host/usr/bin/qemu-aarch64"):
        content = (found.folder / name).read_bytes()
        assert manifest["files"][name] == hashlib.sha256(content).hexdigest()
    assert not (found.folder / "host/usr/bin/qemu-alpha").exists()
    before = calls(pretended)
    again, made = installation.set_up()
    assert not made and again == found and calls(pretended) == before
    assert installation.find() == found and "ready" in installation.state()


def test_a_changed_file_or_another_version_is_made_anew(pretended, monkeypatch):
    found, _ = installation.set_up()
    (found.folder / "libLiteRt.so").write_text("other")
    fresh, made = installation.set_up()
    assert made and (fresh.folder / "libLiteRt.so").read_text() == "library"
    monkeypatch.setattr(installation, "runtime_version", lambda: "9.9")
    with pytest.raises(TargetError, match="made by another version.*setup arm64"):
        installation.find()
    assert installation.set_up()[1] and installation.find().manifest["runtime"] == "9.9"


def test_a_set_up_that_fails_leaves_nothing_and_spoils_nothing(pretended, monkeypatch):
    (pretended / "fail").touch()
    with pytest.raises(TargetError, match="Unable to locate package qemu-user"):
        installation.set_up()
    parent = installation.folder().parent
    assert list(parent.iterdir()) == []
    (pretended / "fail").unlink()
    found, _ = installation.set_up()

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(installation, "_compile", interrupted)
    (found.folder / "runner").write_text("spoilt")
    with pytest.raises(KeyboardInterrupt):
        installation.set_up()
    assert list(parent.iterdir()) == [found.folder] and installation.find() == found


def test_what_the_set_up_needs_is_said(pretended, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(installation.platform, "machine", lambda: "arm64")
        patch.setattr(installation.platform, "system", lambda: "Darwin")
        with pytest.raises(TargetError, match="needs Linux on x86_64.*Darwin on arm64"):
            installation.set_up()
        with pytest.raises(TargetError, match="not set up.*cannot be made here.*needs Linux"):
            get_target("arm64:cortex-a53").check(tflite_files.file("two", "int8"))
    with pytest.raises(TargetError, match="not set up.*Run: tfedge target setup arm64"):
        measure(tflite_files.file("two"), target=["host", "arm64:cortex-a53"])
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(pretended))
        with pytest.raises(TargetError, match="needs Debian's apt-get and dpkg-deb"):
            installation.set_up()
    with monkeypatch.context() as patch:
        patch.setattr(packages, "mirrors", list)
        with pytest.raises(TargetError, match="needs Debian 11 or later"):
            installation.set_up()
    with monkeypatch.context() as patch:
        patch.setattr(installation, "find_spec", lambda _: None)
        with pytest.raises(TargetError, match="needs pip"):
            installation.set_up()
    with monkeypatch.context() as patch:
        patch.setenv("TFEDGE_ARM64", "/a:b")
        with pytest.raises(TargetError, match="no colon"):
            installation.set_up()


def test_only_its_own_folder_is_replaced_or_removed(pretended, monkeypatch):
    assert not installation.remove()
    theirs = pretended / "theirs"
    theirs.mkdir()
    (theirs / "work.txt").write_text("dear")
    monkeypatch.setenv("TFEDGE_ARM64", str(theirs))
    for call in (installation.remove, installation.set_up):
        with pytest.raises(TargetError):
            call()
    assert (theirs / "work.txt").read_text() == "dear"
    monkeypatch.delenv("TFEDGE_ARM64")
    found, _ = installation.set_up()
    assert installation.remove() and not found.folder.exists()


def test_mirrors_are_the_systems_own(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://b/debian trixie main contrib # note\n"
        "deb-src http://c/debian bookworm main\n"
        "deb http://sec/debian-security bookworm-security main\n"
        "deb cdrom:[disc]/debian bookworm main\n"
    )
    folder = tmp_path / "sources.list.d"
    (folder / "own.sources").write_text(
        "Types: deb deb-src\nURIs: http://a/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By:\n -----BEGIN\n .\n abc\n -----END\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\n"
    )
    (folder / "tool.list").write_text("deb http://tool/apt stable main\n")
    (folder / "none.list.save").write_text("deb http://saved/debian bookworm main\n")
    found = packages.mirrors(tmp_path)
    assert [m.uri for m in found] == ["http://a/debian", "http://b/debian", "http://tool/apt"]
    assert "Signed-By: \n -----BEGIN\n .\n abc\n" in found[0].stanza
    assert "Suites: bookworm\n" in found[1].stanza and "Signed-By: /k.gpg" in found[1].stanza
    assert packages.mirrors(tmp_path / "none") == []
