import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfedge import shell
from tfedge.errors import InputError, TargetError


def python(code, **options):
    return shell.run([sys.executable, "-c", code], **options)


def test_output_error_and_status_are_kept_apart():
    done = python("import sys; print('o'); print('e', file=sys.stderr); sys.exit(3)")
    assert (done.code, done.out.strip(), done.err.strip()) == (3, b"o", b"e")
    assert done.ending == "exit status 3"


def test_input_folder_and_environment_reach_the_program(tmp_path):
    code = "import os, sys; print(sys.stdin.read(), os.getcwd(), os.environ['WORD'])"
    done = python(code, input=b"in", cwd=tmp_path, env={**os.environ, "WORD": "w"})
    assert done.out.decode().split() == ["in", str(tmp_path.resolve()), "w"]


def test_no_shell_reads_the_arguments(tmp_path):
    done = shell.run([sys.executable, "-c", "import sys; print(sys.argv[1])", "$HOME; echo x"])
    assert done.out.strip() == b"$HOME; echo x"


def test_a_signal_is_named():
    assert python("import os; os.abort()").ending == "killed by SIGABRT"
    assert shell.describe_exit(-99) == "killed by signal 99"


def test_a_timeout_ends_the_grandchildren_too(tmp_path):
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time, pathlib\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(p.pid))\n"
        "print('begun', file=sys.stderr, flush=True); time.sleep(60)"
    )
    begin = time.monotonic()
    with pytest.raises(TargetError, match="did not end within 1.5 s.*it said: begun"):
        python(code, timeout=1.5)
    assert time.monotonic() - begin < 15
    pid = int(note.read_text())
    deadline = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    """False also for a dead process that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("argv", [["tfedge-no-such-program"], []])
def test_a_missing_program_is_one_clear_line(argv):
    with pytest.raises(InputError):
        shell.run(argv)


def test_a_missing_folder_and_a_bad_timeout_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot run"):
        python("", cwd=tmp_path / "none")
    with pytest.raises(InputError, match="timeout"):
        python("", timeout=0)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that a new process can import, and returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(body):
        text = f"from tfedge.shell import Answer, serve\ndef f(values, arrays):\n{body}\nserve(f)\n"
        (tmp_path / "odd_worker.py").write_text(text)
        return "odd_worker"

    return write


def test_a_module_answers_with_values_and_arrays(module):
    name = module(
        "    return Answer({'n': values['n'] + 1}, {k: v[::-1] for k, v in arrays.items()})"
    )
    arrays = {"a/b": np.arange(3, dtype=np.int8), "file": np.zeros((0, 2), np.float16)}
    done = shell.run_module(name, {"n": 1}, arrays)
    assert done.finished.code == 0 and done.answer.values == {"n": 2}
    assert list(done.answer.arrays) == ["a/b", "file"]
    np.testing.assert_array_equal(done.answer.arrays["a/b"], [2, 1, 0])
    assert done.answer.arrays["a/b"].dtype == np.int8
    assert done.answer.arrays["file"].shape == (0, 2)


def test_a_module_that_dies_gives_no_answer(module):
    done = shell.run_module(module("    import os; os.abort()"), {})
    assert done.answer is None and done.finished.ending == "killed by SIGABRT"
    done = shell.run_module(module("    raise ValueError('why')"), {})
    assert done.answer is None and "why" in done.finished.error_text


def test_what_json_has_not_is_refused():
    for value in (float("nan"), object()):
        with pytest.raises(InputError, match="another process"):
            shell.run_module("tfedge.errors", {"x": value})


def test_serve_refuses_to_be_run_by_hand(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["worker"])
    with pytest.raises(InputError, match="run by tfedge itself"):
        shell.serve(lambda values, arrays: shell.Answer())


def test_input_that_is_held_open_beats_and_ends_with_the_program():
    code = "import sys; r = sys.stdin.readline; print(repr(r()), repr(r()), repr(r()))"
    done = python(code, input=b"data\n", hold=0.05)
    assert done.out.decode().split() == [repr(t) for t in ("data\n", "\n", "\n")]
    large = python("import sys; sys.exit(3)", input=bytes(10**6), hold=5.0)
    assert large.code == 3  # It read nothing, and nobody waits for it.


def test_a_module_can_be_run_under_a_program_and_leave_files(tmp_path):
    (tmp_path / "under").write_text('#!/bin/sh\necho x > seen\nexec "$@"\n')
    (tmp_path / "under").chmod(0o755)
    module = "tfedge.targets.host_worker"
    under = [str(tmp_path / "under")]
    ended = shell.run_module(module, {"do": "about"}, under=under, kept=("seen", "none"))
    assert ended.answer is not None and ended.kept == {"seen": b"x\n"}
