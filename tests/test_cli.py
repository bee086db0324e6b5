"""The command line: every command, its files, its exit status."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tfedge.bridge import load_model
from tfedge.cli import cmd_compress, guard
from tfedge.cli.main import COMMANDS, main
from tfedge.tflite import TFLiteModel

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its data, a quantize-aware version and a file of each kind."""
    folder = tmp_path_factory.mktemp("cli")
    files = {
        "data": tiny.write_data(folder / "data.npz"),
        "model": tiny.write_model(folder / "model.keras"),
        "qat": str(folder / "qat.h5"),
        "float32": str(folder / "float32.tflite"),
        "w8a8": str(folder / "w8a8.tflite"),
    }
    assert main(["convert", f"--model={files['model']}", f"--output={files['float32']}",
                 "--scheme=float32"]) == 0  # fmt: skip
    arguments = [f"--model={files['model']}", f"--output={files['qat']}", "--epochs=1"]
    assert main(["qat", f"--data={files['data']}", *arguments]) == 0
    assert main(["convert", f"--model={files['qat']}", f"--output={files['w8a8']}"]) == 0
    return files


def test_qat_with_schemes_by_layer_and_a_schedule(made, tmp_path, capsys):
    head = load_model(made["model"]).layers[-1].name
    argv = [f"--model={made['model']}", f"--data={made['data']}", f"--output={tmp_path}/q.h5"]
    argv += ["--epochs=1", f"--override={head}=float", "--ranges=learned", "--start_step=1"]
    assert main(["qat", *argv, "--freeze_ranges_step=2"]) == 0
    assert main(["convert", f"--model={tmp_path}/q.h5", f"--output={tmp_path}/q.tflite"]) == 0
    file = TFLiteModel.load(tmp_path / "q.tflite")
    assert head in file.meta["float_layers"]
    capsys.readouterr()
    assert main(["qat", *argv, "--override=nothing"]) != 0
    assert "--override takes NAME=VALUE" in capsys.readouterr().err
    assert main(["qat", *argv, "--override=haed=float"]) != 0
    assert "names no layer" in capsys.readouterr().err


def test_overview_is_quick_and_needs_no_tensorflow():
    code = (
        "import sys; from tfedge.cli.main import main; code = main([]);"
        "sys.exit(code or 'tensorflow' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_only_the_flags_of_the_command(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: tfedge {name} --flag=value")
    assert "--debug" in text
    for foreign in ("--logtostderr", "--verbosity", "--flagfile"):
        assert foreign not in text
    assert ("--round_to" in text) == (name == "prune")
    assert ("--recipe" in text) == (name == "compress")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prun"], "Did you mean 'prune'?"),
        (["xyz"], "Choose one of: compress"),
        (["prune"], "--model is missing"),
        (["prune", "--model=a", "--output=b.keras", "--sparcity=1"], "Did you mean: sparsity?"),
        (["prune", "--model=a", "--output=b.keras", "stray"], "'stray' is not a flag"),
        (["prune", "--model=a", "--output=b", "--sparsity=half"], "--sparsity"),
        (["convert", "--model=a", "--output=b", "--io=bits"], "--io"),
    ],
)
def test_wrong_flags_give_one_line_and_status_2(arguments, expected, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("tfedge: error: ")
    assert captured.out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_launchers_are_the_same_commands(name):
    text = (ROOT / "tools" / f"{name}.py").read_text()
    assert f'command_main("{name}")' in text
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), "--help"],
        cwd="/", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: tfedge {name} ")


def test_prune_writes_model_and_plan_that_can_be_applied_again(made, tmp_path, capsys):
    from tfedge import api

    out, plan, again = (tmp_path / n for n in ("small.keras", "plan.json", "again.h5"))
    flags = [f"--model={made['model']}"]
    assert main(["prune", *flags, f"--output={out}", f"--plan_out={plan}"]) == 0
    text = capsys.readouterr().out
    assert "it is an output of the model" in text
    assert main(["prune", *flags, f"--output={again}", f"--plan={plan}"]) == 0
    first, second = api.load_model(out), api.load_model(again)
    assert (
        first.count_params() == second.count_params() < api.load_model(made["model"]).count_params()
    )
    assert first.get_layer("conv").kernel.shape[-1] == 8


def test_prune_takes_budgets_skips_and_overrides(made, tmp_path):
    from tfedge import api

    out = tmp_path / "small.keras"
    flags = [f"--model={made['model']}", f"--output={out}", "--round_to=1", "--sparsity=0.5"]
    assert main(["prune", *flags, "--skip=b/conv", "--override=conv=0.25"]) == 0
    small = api.load_model(out)
    assert small.get_layer("conv").filters == 12
    assert small.get_layer("b/conv").filters == 16
    budget = [f"--model={made['model']}", f"--output={out}", "--round_to=1", "--target_macs=0.4"]
    assert main(["prune", *budget]) == 0
    from tfedge.profile import profile

    whole = profile(api.load_model(made["model"])).macs
    assert profile(api.load_model(out)).macs / whole == pytest.approx(0.4, abs=0.03)


def test_distill_improves_the_student(made, tmp_path, capsys):
    out = tmp_path / "student.keras"
    flags = [f"--student={made['model']}", f"--teacher={made['model']}", f"--data={made['data']}"]
    flags += ["--epochs=6", "--batch_size=16", "--alpha=0.1", "--learning_rate=0.01"]
    assert main(["distill", *flags, f"--output={out}"]) == 0
    text = capsys.readouterr().out
    scores = {
        line.split("  ")[0].strip(): float(line.split()[-1])
        for line in text.splitlines()
        if line.strip().startswith(("teacher", "student"))
    }
    assert scores["student after"] > scores["student before"] + 0.1
    assert out.is_file()


def test_qat_file_is_all_integer(made):
    from tfedge.tflite import TFLiteModel

    file = TFLiteModel.load(made["w8a8"])
    assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"
    assert not any("float" in row.types for row in file.certificate)


def test_convert_writes_certificate(made, tmp_path):
    out, certificate = tmp_path / "f.tflite", tmp_path / "c.json"
    flags = [f"--model={made['model']}", f"--output={out}", f"--certificate={certificate}"]
    assert main(["convert", *flags, "--scheme=w8a8", "--calibration=random:8", "--batch=2"]) == 0
    rows = json.loads(certificate.read_text())
    assert {"index", "op", "layer", "types", "delegated", "reason"} <= set(rows[0])
    assert [r["op"] for r in rows].count("CONV_2D") == 2


@pytest.mark.parametrize(("cpu", "bias"), [("x86_64", "int32"), ("arm64", "int64")])
def test_convert_writes_16_bit_files_for_a_processor(cpu, bias, made, tmp_path):
    out, certificate = tmp_path / "f.tflite", tmp_path / "c.json"
    flags = [f"--model={made['model']}", f"--output={out}", f"--certificate={certificate}"]
    flags += ["--scheme=w8a16", "--calibration=random:8", f"--cpu={cpu}"]
    assert main(["convert", *flags]) == 0
    types = [r["types"] for r in json.loads(certificate.read_text()) if r["op"] == "CONV_2D"]
    assert set(types) == {f"int16,int8,{bias}->int16"}


def test_verify_reports_the_drift(made, tmp_path, capsys):
    out = tmp_path / "v.json"
    flags = [f"--model={made['qat']}", f"--tflite={made['w8a8']}", "--data=random:8"]
    assert main(["verify", *flags, f"--json={out}"]) == 0
    drift = json.loads(out.read_text())
    assert drift["samples"] == 8
    assert drift["cosine"] > 0.99
    assert "output SQNR" in capsys.readouterr().out


def test_benchmark_and_json_on_standard_output(made, capsys):
    flags = [f"--model={made['float32']}", f"--model={made['w8a8']}", "--runs=3"]
    assert main(["benchmark", *flags, "--json=-"]) == 0
    result = json.loads(capsys.readouterr().out)
    timings, data = result["timings"], Path(made["w8a8"]).read_bytes()
    assert list(result["sha256"].values())[1] == hashlib.sha256(data).hexdigest()
    assert [t["runs"] for t in timings] == [3, 3]
    assert all(t["p50_ms"] > 0 and t["source"] == "measured" for t in timings)
    assert main(["benchmark", *flags]) == 0
    text = capsys.readouterr().out
    assert "speed-up" in text
    assert "float32" in text


def test_inspect_of_model_and_file(made, capsys):
    assert main(["inspect", f"--model={made['model']}"]) == 0
    text = capsys.readouterr().out
    assert "Channel groups" in text
    assert "cannot be pruned: it is an output of the model" in text
    assert main(["inspect", f"--model={made['w8a8']}", "--json=-"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "tflite"
    assert main(["inspect", f"--model={made['w8a8']}"]) == 0
    assert "CONV_2D" in capsys.readouterr().out


def test_further_values_after_set():
    from absl import flags

    values = flags.FlagValues()
    cmd_compress.define(values)
    values.set_gnu_getopt(True)
    left = values(["x", "--set", "seed=1", "stages.0.epochs=2"])[1:]
    cmd_compress.take_rest(values, left)
    assert values["set"].value == ["seed=1", "stages.0.epochs=2"]


def test_no_noise_on_the_screen(made, tmp_path):
    """A whole command in a process of its own: nothing of TensorFlow's on either stream."""
    argv = [sys.executable, str(ROOT / "tools" / "convert.py"), f"--model={made['qat']}",
            f"--output={tmp_path / 'f.tflite'}", "--scheme=w8a8"]  # fmt: skip
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["converting to w8a8 ..."]
    assert done.stdout.startswith(str(tmp_path / "f.tflite"))


def test_interrupt_gives_130(capsys):
    def stop():
        raise KeyboardInterrupt

    assert guard.guarded(stop, debug=False) == 130
    assert capsys.readouterr().err == "tfedge: error: interrupted; what was finished is kept\n"


def test_unknown_errors_point_to_debug_and_debug_shows_all(capsys):
    def fail():
        raise ZeroDivisionError("by\nzero")

    assert guard.guarded(fail, debug=False) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "ZeroDivisionError: by zero. Run again with --debug" in text
    assert guard.guarded(fail, debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, str(ROOT / "tools" / "prune.py"), "--help"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def test_prune_looks_at_data_where_it_is_asked_to(made, tmp_path, capsys):
    data, out = made["data"], tmp_path / "p.keras"
    flags = ["prune", f"--model={made['model']}", f"--output={out}"]
    assert main([*flags, "--importance=taylor", "--sparsity=0.5"]) == 1
    assert "--data" in capsys.readouterr().err
    assert main([*flags, "--importance=taylor", f"--data={data}", "--scope=global"]) == 0
    assert main([*flags, f"--data={data}"]) == 1
    assert "of no use" in capsys.readouterr().err
    assert main([*flags, "--remove_blocks=1", f"--data={data}"]) == 1
    assert "residual blocks" in capsys.readouterr().err
    assert main([*flags, "--target_bytes=3000", "--round_to=1", "--floor=0.1"]) == 0
    assert load_model(out).count_params() < 3100 / 4
