"""ssh:USER@HOST against a real sshd on loopback, and its faults."""

import ast
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests import board as boards
from tests import tflite_files
from tfedge.errors import InputError, TargetError
from tfedge.shell import Finished
from tfedge.targets import get_target
from tfedge.targets.ssh import link, setup, wire
from tfedge.targets.ssh.address import Address, parse
from tfedge.targets.ssh.target import SshTarget
from tfedge.tflite import Interpreter, flatbuffer


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = boards.start(tmp_path_factory.mktemp("b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", boards.on_path(made))
        yield made
    boards.stop(made)


@pytest.fixture
def board(running):
    running.usual()
    yield running
    assert running.wait_clean() == [], "files were left on the board"


def target(timeout_s=60.0):
    return SshTarget(address=parse("board"), timeout_s=timeout_s)


def image():
    return tflite_files.file("image", "int8")


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pi@board", Address("pi", "board")),
        ("board", Address("", "board")),
        ("pi@10.0.0.7:2222", Address("pi", "10.0.0.7", 2222)),
        ("u@[fe80::1%eth0]:22", Address("u", "fe80::1%eth0", 22)),
        ("my-board.local", Address("", "my-board.local")),
    ],
)
def test_addresses_are_read_and_written(text, address):
    assert parse(text) == address and str(address) == text
    words = address.argv("command")
    assert words[-3:] == ["--", address.host, "command"]
    assert ("-l" in words) == bool(address.user) and ("-p" in words) == bool(address.port)
    assert "BatchMode=yes" in words


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=x", "pi@-x", "-l@board", "a b", "a;b", "$(x)@b", "a@b@c", "a'b", "a\nb",
     "b:0", "b:99999", "b:x", "@b", "u@", "b/../c", "[::1", "u@b:22:23", "b`x`", "$HOME@b", "a&b"],
)  # fmt: skip
def test_what_could_be_an_option_or_a_command_is_no_address(text):
    with pytest.raises(TargetError, match="this is no address of a board"):
        get_target(f"ssh:{text}")


def test_nothing_of_the_users_is_in_the_boards_command_line(tmp_path, monkeypatch):
    log = tmp_path / "log"
    boards.script(tmp_path / "ssh", f'printf "%s\\n" "$@" > {log}; cat >/dev/null & exit 255\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TargetError, match="cannot be reached"):
        target().time({"a'; touch x; '$(y)": image()}, 1, 1)
    assert log.read_text().splitlines()[-3:] == ["--", "board", link.COMMAND]


# The board


def test_the_runner_is_all_that_the_worker_needs(tmp_path):
    (tmp_path / "runner.zip").write_bytes(link.runner())
    places = {str(Path(m.__file__).parent.parent) for m in (np, __import__("flatbuffers"))}
    code = f"import sys; sys.path[:0] = {[str(tmp_path / 'runner.zip'), *places]}\n"
    code += "import tfedge; assert 'runner.zip' in tfedge.__file__, tfedge.__file__\n"
    code += "import tfedge.targets.host_worker as w, tfedge.targets.ssh.agent\n"
    code += "import tfedge.targets.ssh.install; print(w.about({}, {}).values['runtime'])\n"
    code += "assert not {'tensorflow', 'absl', 'rich'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0 and done.stdout.startswith("2."), done.stderr


def test_an_old_python_can_read_the_bootstrap():
    """It must live to say that it is too old."""
    text = (Path(link.__file__).parent / "bootstrap.py").read_text()
    ast.parse(text, feature_version=(3, 6))
    with pytest.raises(SyntaxError):
        ast.parse("(x := 1)", feature_version=(3, 6))


def test_a_bare_python_can_be_set_up(tmp_path):
    """numpy is one of the things that a board may lack."""
    (tmp_path / "runner.zip").write_bytes(link.runner())
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'runner.zip')!r})\n"
    code += "import tfedge.targets.ssh.install, tfedge.targets.ssh.agent as a, pathlib\n"
    code += "print(a.main(pathlib.Path('.')))"
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "('missing', b'numpy, flatbuffers, ai_edge_litert')\n", done.stderr


def test_files_are_measured_there_and_everything_comes_back(board):
    first, second = target().time({"a": image(), "$(b) 'c'": tflite_files.file("image")}, 3, 1)
    assert (first.model, second.model) == ("a", "$(b) 'c'")
    assert first.ratio_p50 == 1.0 and second.ratio_min > 0
    assert first.cpus >= 1 and "LiteRT" in first.device and first.init_ms > 0
    # Either counted, or the reason.
    assert first.instructions or "perf" in first.note


def test_perf_fills_the_timing(board, tmp_path):
    counted = "$(( (BASE + ${n:-0}) * 1000 ))"
    boards.script(board.folder / "bin/perf", f"""
while [ "$1" != -- ]; do [ "$1" = -o ] && out=$2; shift; done; shift
"$@" || exit 1
n=$(grep -o '"times": [0-9]*' request.json 2>/dev/null | grep -o '[0-9]*$'); BASE=77
for e in instructions:u cycles:u; do
  line="{counted},,$e,1,100.00,,"
  if [ "$out" ]; then echo "$line" >> "$out"; else echo "$line" >&2; fi
done
""")  # fmt: skip
    try:
        (found,) = target().time({"m": image()}, 1, 1)
    finally:
        (board.folder / "bin/perf").unlink()
    # It counts 1000 an inference and 77,000 for the start, which falls out.
    assert (found.instructions, found.cycles, found.cache_misses) == (1000, 1000, None)


def test_an_op_that_the_runtime_lacks_is_named(board):
    model = flatbuffer.read(tflite_files.file("image"))
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 32
    code.customCode = b"NoSuchOp"
    data = flatbuffer.write(model)
    with pytest.raises(TargetError, match="model 'odd' cannot be run on ssh:board.*NoSuchOp"):
        target().time({"good": image(), "odd": data}, 1, 1)
    (violation,) = target().check(data)
    assert violation.fatal and "NoSuchOp" in violation.reason


# What may be wrong with a board


def test_a_board_without_python_is_told(board):
    board.python("echo 'python3: not found' >&2; exit 127")
    with pytest.raises(TargetError, match="ssh:board has no python3.*Python 3.10 or later"):
        target().prepare()


def test_a_runtime_that_does_not_load_is_sent_to_the_set_up(board, tmp_path):
    (tmp_path / "ai_edge_litert").mkdir()
    lines = "raise ImportError('wrong ELF class: ELFCLASS32')"
    (tmp_path / "ai_edge_litert/__init__.py").write_text(lines)
    place = board.home / ".cache/tfedge" / target().link.runtime
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path)
    try:
        with pytest.raises(TargetError, match="not load on ssh:board.*wrong ELF.*target setup ssh"):
            target().prepare()
    finally:
        shutil.rmtree(board.home / ".cache")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"machine": "armv7l", "bits": 32}, "no wheel for the architecture.*armv7l.*aarch64"),
        ({"machine": "aarch64", "bits": 32}, "32-bit Python"),
        ({"python": "3.9"}, "Python of ssh:board is too old.*3.9"),
        ({"system": "FreeBSD"}, "does not run Linux"),
        ({}, "LiteRT is not on ssh:board.*no ai_edge_litert.*tfedge target setup ssh:board"),
    ],
)
def test_a_board_that_does_not_fit_is_refused(facts, words):
    fit = {"machine": "aarch64", "system": "Linux", "python": "3.11", "bits": 64}
    with pytest.raises(TargetError, match=words):
        target().understood(link.Reply("missing", {**fit, **facts}, payload=b"ai_edge_litert"))


def test_the_boards_architecture_is_its_own(board):
    """Linux can tell a program that the machine is an i686."""
    board.python('exec setarch i686 "$PYTHON" "$@"')
    reply = target().link.call("tfedge.targets.ssh.agent", wire.pack([]), 30)
    if reply.facts["machine"] == "x86_64":
        pytest.skip("this machine cannot pretend to be another")
    with pytest.raises(TargetError, match="no wheel for the architecture of ssh:board.*i686"):
        target().require_fit(reply.facts)


def test_no_room_on_the_board_is_told(board):
    board.python('ulimit -f 8; exec "$PYTHON" "$@"')
    with pytest.raises(TargetError, match="ssh:board cannot take the files.*Make room"):
        target().prepare()


def test_no_temporary_folder_is_told(board):
    # Python falls back to other folders: no file may have any size there.
    board.python(f'ulimit -f 0; export TMPDIR={board.folder}/none; cd /proc; exec "$PYTHON" "$@"')
    with pytest.raises(TargetError, match="ssh:board cannot take the files.*temporary"):
        target().prepare()


def test_a_timeout_names_the_file_and_ends_the_process(board):
    with pytest.raises(TargetError, match="'m' did not finish on ssh:board"):
        target(timeout_s=0.05).time({"m": image()}, 1, 1)


def test_a_board_that_takes_for_ever_is_ended(board):
    request = {"values": {"do": "repeat", "times": 10**9, "threads": 1}, "timeout_s": 60.0}
    packed = wire.pack([(request, {"file": np.frombuffer(image(), np.uint8)})])
    begin = time.monotonic()
    found = target().link.call("tfedge.targets.ssh.agent", packed, 2.0)
    assert found.kind == "late" and time.monotonic() - begin < 15
    with pytest.raises(TargetError, match="took longer than 2 s"):
        target().understood(found)


def test_a_lost_connection_is_told_and_the_board_tidies_up(board):
    def cut():
        while not board.left():
            time.sleep(0.02)
        time.sleep(1.0)
        board.stop_connections()

    lost = threading.Thread(target=cut)
    lost.start()
    with pytest.raises(TargetError, match="connection to ssh:board was lost"):
        target().time({"a": image()}, 10**7, 1)
    lost.join()
    assert board.wait_clean() == []
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if _mentions(p, str(board.tmp))]


def _mentions(path, word):
    try:
        return word in path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return False


def test_silence_ends_the_work_there(board, monkeypatch):
    """A cable that is pulled closes nothing: the board must notice by itself."""
    monkeypatch.setattr(link, "BEAT_S", 100.0)
    monkeypatch.setattr(link, "SILENCE_S", 1.0)
    with pytest.raises(TargetError, match="connection to ssh:board was lost"):
        target().time({"a": image()}, 10**7, 1)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("pi@b: Permission denied (publickey).", "refuses the login.*ssh-copy-id -p 22 pi@b"),
        ("Host key verification failed.", "host key.*Connect once by hand: ssh -p 22 pi@b"),
        ("ssh: Could not resolve hostname b", "no host of this name"),
        ("ssh: connect to host b port 22: Connection refused", "cannot be reached.*refused"),
        ("ssh: connect to host b port 22: Connection timed out", "cannot be reached.*timed out"),
    ],
)
def test_a_board_that_cannot_be_reached_is_told(tmp_path, monkeypatch, said, words):
    boards.script(tmp_path / "ssh", f"echo '{said}' >&2; exit 255\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TargetError, match=words):
        get_target("ssh:pi@b:22").prepare()


def test_no_client_no_board(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TargetError, match="SSH client cannot be started"):
        target().prepare()


def test_a_real_refusal_of_a_key(board, tmp_path, monkeypatch):
    (board.folder / "authorized_keys").rename(tmp_path / "keys")
    try:
        with pytest.raises(TargetError, match="refuses the login: ssh:board"):
            target().prepare()
    finally:
        (tmp_path / "keys").rename(board.folder / "authorized_keys")


# The set-up


def wheel(folder, name, files):
    path = folder / f"{name}-9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for inner, text in files.items():
            packed.writestr(inner, text)
    return path


def test_wheels_are_unpacked_into_the_cache_and_removed_again(board, tmp_path, monkeypatch):
    made = [
        wheel(tmp_path, "numpy", {"numpy/__init__.py": ""}),
        wheel(tmp_path, "flatbuffers", {"flatbuffers-9.9.data/purelib/flatbuffers.py": ""}),
        wheel(tmp_path, "ai_edge_litert", {
            "ai_edge_litert/__init__.py": "", "ai_edge_litert/interpreter.py": "Interpreter = 1",
        }),
    ]  # fmt: skip
    monkeypatch.setattr(setup, "_works", lambda target: False)
    monkeypatch.setattr(setup, "fetch", lambda into, facts: made)
    found = setup.set_up(target())
    place = Path(found["place"])
    assert found["made"] and place.parent == board.home / ".cache/tfedge"
    assert {p.name for p in place.iterdir()} == {"numpy", "flatbuffers.py", "ai_edge_litert"}
    assert setup.remove(target()) == {
        "target": "ssh:board", "place": str(place), "removed": True,
    }  # fmt: skip
    assert not place.exists() and not setup.remove(target())["removed"]
    (tmp_path / "ai_edge_litert-9.9-py3-none-any.whl").unlink()
    bad = {"ai_edge_litert/__init__.py": "", "ai_edge_litert/interpreter.py": "import wrong_elf"}
    made[2] = wheel(tmp_path, "ai_edge_litert", bad)
    with pytest.raises(TargetError, match="does not load on ssh:board.*wrong_elf"):
        setup.set_up(target())
    assert not list(place.parent.iterdir())


def test_a_board_that_has_all_is_left_alone(board):
    assert setup.set_up(target())["made"] is False
    assert not list(board.home.glob(".cache/tfedge/*"))


def test_pip_is_asked_for_the_boards_own_wheels(tmp_path, monkeypatch):
    asked = []

    def run(argv, timeout):
        asked.append(argv)
        return Finished(1, b"", b"ERROR: No matching distribution")

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setenv(setup.WHEELS, str(tmp_path))
    facts = {"machine": "aarch64", "python": "3.11", "glibc": "2.31"}
    with pytest.raises(TargetError, match=f"no wheels for Python 3.11 on aarch64.*{tmp_path.name}"):
        setup.fetch(tmp_path, facts)
    assert "--no-index" in asked[0] and "manylinux_2_31_aarch64" in asked[0]
    assert "manylinux_2_32_aarch64" not in asked[0]
    assert setup.platforms("aarch64", "") == ["musllinux_1_2_aarch64"]


# Frames and packages


def test_login_messages_and_cut_frames_are_no_answer():
    head = b'\0TFEDGE\0{"kind": "hello", "bytes": 0}\n'
    body = b'\0TFEDGE\0{"kind": "reply", "bytes": 4}\nabcd'
    found = link._frames(b"Welcome!\n" + head + body)
    assert [(f["kind"], payload) for f, payload in found] == [("hello", b""), ("reply", b"abcd")]
    for cut in (1, 4, 5, 20):
        assert len(link._frames(head + body[:-cut])) == 1


def test_equal_arrays_travel_once():
    x = np.random.default_rng(0).integers(0, 255, 20_000, np.uint8)
    both = wire.pack([({"a": 1}, {"x": x}), ({"b": None}, {"y": x.copy(), "z/w": x[:3]})])
    assert len(both) < 1.5 * len(wire.pack([({}, {"x": x})]))
    (one, first), (two, second) = wire.unpack(both)
    assert (one, two) == ({"a": 1}, {"b": None})
    np.testing.assert_array_equal(first["x"], x)
    np.testing.assert_array_equal(second["z/w"], x[:3])
    with pytest.raises(ValueError, match="damaged"):
        wire.unpack(both[:-30])


def test_outputs_are_the_interpreters(board):
    data = tflite_files.file("two", "int8")
    rng = np.random.default_rng(0)
    specs = Interpreter(data).inputs
    x = {s.name: rng.integers(-128, 128, (3, *s.shape[1:])).astype(np.int8) for s in specs}
    found, here = target().run(data, x), Interpreter(data).run_all(x)
    assert all((found[name] == here[name]).all() for name in here)


def test_wrong_numbers_are_input_errors():
    with pytest.raises(InputError):
        target().prepare(0)
