import numpy as np
import pytest

from tests import tflite_files
from tfedge.errors import ConversionError, InputError
from tfedge.tflite import Interpreter, check, check_runs, flatbuffer


@pytest.mark.parametrize("kind", ["float", "int8", "int16"])
def test_a_good_file_gives_the_interpreters_ops(kind):
    data = tflite_files.file("two", kind)
    assert check_runs(data) == Interpreter(data).ops()


def test_a_failing_op_is_named():
    model = flatbuffer.read(tflite_files.file("image", "int16"))
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = [1, 8, 8, 5]  # The kernel has 3 input channels.
    with pytest.raises(ConversionError, match=r"op 0 \(CONV_2D\) failed to prepare"):
        check_runs(flatbuffer.write(model))


def test_what_is_no_file_is_refused():
    with pytest.raises(InputError, match="not a TFLite file"):
        check_runs(b"hello there")
    with pytest.raises(ConversionError, match="does not run"):
        check_runs(tflite_files.file("image")[:800])


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Puts another module in the place of the one that runs the file."""

    def write(body):
        (tmp_path / "odd_check.py").write_text(body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(check, "_MODULE", "odd_check")

    return write


def test_a_killed_process_is_told_with_its_phase_and_signal(worker):
    worker(
        "import os\nprint('prepare', flush=True)\n"
        "os.write(2, b'INFO: x\\nkernel.cc:7 no\\n')\nos.abort()"
    )
    with pytest.raises(ConversionError, match=r"prepares it.*SIGABRT.*kernel.cc:7 no"):
        check_runs(tflite_files.file("image"))
    worker("import os\nos.write(2, b'Node number 3 (ADD) failed to invoke.')\nos.abort()")
    with pytest.raises(ConversionError, match=r"op 3 \(ADD\) failed to invoke.*SIGABRT"):
        check_runs(tflite_files.file("image"))


def test_the_op_that_kills_the_process_is_found(worker):
    worker(
        "import os\n"
        "from tfedge.shell import Answer, serve\n"
        "from tfedge.tflite import flatbuffer as fb\n"
        "def f(values, arrays):\n"
        "    model = fb.read(arrays['file'].tobytes())\n"
        "    names = [fb.op_name(model, op) for _, _, op in fb.operators(model)]\n"
        "    if 'MEAN' in names: os.abort()\n"
        "    return Answer({'ops': []})\n"
        "serve(f)\n"
    )
    with pytest.raises(ConversionError, match=r"SIGABRT at op 3 \(MEAN, tensor '.*gap.*'\)"):
        check_runs(tflite_files.file("image"))


def test_a_file_that_does_not_end_is_refused(worker):
    worker("import time; time.sleep(60)")
    with pytest.raises(ConversionError, match="does not finish"):
        check_runs(tflite_files.file("image"), timeout=1)


def test_random_inputs_fit_and_repeat():
    specs = Interpreter(tflite_files.file("image", "int8")).inputs
    first, again = check.random_inputs(specs), check.random_inputs(specs)
    np.testing.assert_array_equal(first["image"], again["image"])
    assert first["image"].dtype == np.int8 and first["image"].shape == (1, 8, 8, 3)
    assert len(np.unique(first["image"])) > 50
