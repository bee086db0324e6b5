"""Accuracy on targets: test sets alone, paired comparison, saturated inputs, the table."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

import tfedge
from tests import tflite_files
from tests.report_records import make
from tfedge import accuracy
from tfedge._keras import keras
from tfedge.cli.main import main
from tfedge.errors import InputError
from tfedge.record import Score, Timing, from_json, to_json
from tfedge.report import write_report
from tfedge.report.scores import score_rows, scores_table, stands_out, timings_of
from tfedge.scoring import KINDS, by_output, compare_outputs, score_output
from tfedge.targets import TARGETS
from tfedge.task import Task, get_task
from tfedge.task_readers import read_test
from tfedge.tflite import Interpreter

COUNT = 40


@pytest.fixture(scope="module")
def data():
    """Inputs and labels of the int8 file "image": those it gives itself, a quarter spoilt."""
    x = np.random.default_rng(3).random((COUNT, 8, 8, 3)).astype("float32")
    p = Interpreter(tflite_files.file("image", "int8")).predict(x)["p"].argmax(1)
    p[: COUNT // 4] = (p[: COUNT // 4] + 1) % 3
    return x, {"p": p, "q": np.arange(COUNT) % 2}


def image():
    return tflite_files.file("image", "int8")


def scored(task, file=None, **other):
    (timing,) = tfedge.benchmark(file or image(), runs=1, task=task, **other)
    return timing.score


def text_of(renderable):
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


# ---- test sets that stand alone ------------------------------------------------------------------


def test_a_test_set_needs_no_training_data(data, tmp_path, monkeypatch):
    x, y = data
    assert scored((x, y)).scores["p_accuracy"] == 0.75
    forms = [(x, y), {"x": x, "y": y}, ({"image": x}, y), {"test": (x, y)}, Task(None, (x, y))]
    forms += [(x, (y["p"], y["q"])), ((x, y), (x, y))]
    monkeypatch.chdir(tmp_path)
    np.savez("named.npz", image_test=x, p_test=y["p"], q_test=y["q"])
    np.savez("plain.npz", image=x, **y)
    forms += ["named.npz", "plain.npz", "mine.py:pair", "mine.py:test_only"]
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "d = dict(np.load('plain.npz'))\n"
        "def pair(): return d['image'], {k: d[k] for k in 'pq'}\n"
        "def test_only(): return {'test': pair()}\n"
    )
    for form in forms:
        (test,) = accuracy.tests_of(image(), form).values()
        ((inputs, labels),) = test.batches(COUNT, COUNT)
        np.testing.assert_array_equal(inputs["image"], x)
        for name, values in by_output(labels, ["p", "q"], "labels").items():
            np.testing.assert_array_equal(values, y[name])
        assert test.task.kind == ("sparse", "sparse")
    for name in ("pair", "test_only"):
        with pytest.raises(InputError):
            get_task(f"mine.py:{name}")


def test_npz_with_a_test_part_only(tmp_path):
    x, y = np.zeros((10, 4), "float32"), np.arange(10) % 3
    path = tmp_path / "d.npz"
    np.savez(path, x_test=x, y_test=y)
    assert (read_test(path).test.size, read_test(path).train) == (10, None)
    with pytest.raises(InputError, match="does not hold a task.*x_test, y_test.*Give x_train"):
        get_task(path)
    np.savez(path, x=x, y=y, class_names=["a", "b", "c"])
    task = read_test(path)
    assert (task.test.size, task.labels) == (10, ("a", "b", "c"))
    np.testing.assert_array_equal(task.test.sample_labels(), y)
    assert get_task(path).test.size == 2
    np.savez(path, x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    assert read_test(path).test.size == 3
    np.savez(path, x_train=x, y_train=y)
    with pytest.raises(InputError, match="holds no test part.*x_train"):
        read_test(path)
    # One name per input and output, where there is one of each too.
    np.savez(path, wave=x, score=y)
    assert read_test(path, ["wave"], ["score"]).test.input_names == ("wave",)
    with pytest.raises(InputError, match="holds no labels"):
        read_test(path)
    with pytest.raises(InputError, match="names no task"):
        read_test(3)


def test_training_with_a_task_that_only_measures_is_refused():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(3)(x))
    with pytest.raises(InputError, match="no training samples"):
        Task(None, (np.zeros((2, 4), "f"), np.zeros(2, int))).for_model(model)


def folder(root, classes, count=4):
    image_module = pytest.importorskip("PIL.Image")
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            color = (60 * number, 10 * i, 99)
            image_module.new("RGB", (8, 8), color).save(root / name / f"{i}.png")


def test_image_folders_with_a_test_part_only(tmp_path):
    folder(tmp_path / "a" / "test", "xyz")
    folder(tmp_path / "b", "xyz")
    for root in (tmp_path / "a", tmp_path / "b"):
        task = read_test(root)
        assert (task.test.size, task.labels, task.train) == (12, tuple("xyz"), None)
        assert list(task.test.sample_labels()) == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(InputError, match="one folder per class"):
        get_task(tmp_path / "a")
    assert get_task(tmp_path / "b").test.size == 2
    folder(tmp_path / "c" / "train", "xyz")
    with pytest.raises(InputError, match="no test part"):
        read_test(tmp_path / "c")
    folder(tmp_path / "c" / "test", "yz")
    # The training part numbers the classes where there is one.
    assert set(read_test(tmp_path / "c").test.sample_labels()) == {1, 2}


def small(labels=()):
    """A float file of one image input and three classes."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4, 4, 3))
    net = keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    made = tfedge.convert(net, "float32", metadata={"labels": list(labels)})
    return made.data


def test_classes_have_the_files_numbers(tmp_path):
    folder(tmp_path / "part", "bc")
    (test,) = accuracy.tests_of(small("abc"), tmp_path / "part").values()
    assert set(test.task.test.sample_labels()) == {1, 2}
    with pytest.raises(InputError, match="2 folders, 3 outputs.*empty folder"):
        accuracy.tests_of(small(), tmp_path / "part")
    (tmp_path / "part" / "a").mkdir()
    (test,) = accuracy.tests_of(small(), tmp_path / "part").values()
    assert set(test.task.test.sample_labels()) == {1, 2}


def test_a_plain_test_set_on_the_command_line(data, tmp_path, monkeypatch, capsys):
    x, y = data
    monkeypatch.chdir(tmp_path)
    np.savez("t.npz", x_test=x[:, :4, :4], y_test=y["p"])
    (tmp_path / "m.tflite").write_bytes(small())
    assert main(["benchmark", "m.tflite", "--eval", "--data=t.npz", "--runs=1"]) == 0
    out = capsys.readouterr().out
    assert f"{COUNT} of {COUNT}" in out and "standard error" in out
    # The host beside itself has no difference.
    assert "+0.00" not in out and "on the host" not in out


# ---- the paired comparison -----------------------------------------------------------------------


def test_mcnemar_and_differing_predictions():
    rng = np.random.default_rng(0)
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for n in (1, 7, 300):
        y = rng.integers(0, 3, n)
        one, two = rng.random((2, n, 3))
        found = compare_outputs(y, [one, two], "sparse")
        right, other = one.argmax(1) == y, two.argmax(1) == y
        b, c = int((right & ~other).sum()), int((~right & other).sum())
        assert found.different == (one.argmax(1) != two.argmax(1)).sum() >= b + c
        error = math.sqrt(b + c - (b - c) ** 2 / n) / n
        assert found.standard_error == pytest.approx(error, abs=1e-12)
        expected = binomtest(b, b + c).pvalue if b + c else 1.0
        assert found.p_value == pytest.approx(expected)
        turned = compare_outputs(y, [two, one], "sparse")
        assert dataclasses.astuple(turned) == pytest.approx(dataclasses.astuple(found))
        hot = compare_outputs(np.eye(3)[y], [one, two], "onehot")
        assert hot == found
        assert compare_outputs(y, [one, one], "sparse") == type(found)(0, 0.0, 1.0)


def test_many_draws_do_not_overflow():
    y = np.zeros(20_000, int)
    one = np.tile([1.0, 0.0], (20_000, 1))
    two = one.copy()
    two[:10_000] = [0.0, 1.0]
    found = compare_outputs(y, [one, two], "sparse")
    assert found.different == 10_000 and 0 <= found.p_value < 1e-300
    one[:5_000] = [0.0, 1.0]
    two[:5_000], two[5_000:10_000] = [1.0, 0.0], [0.0, 1.0]
    assert compare_outputs(y, [one, two], "sparse").p_value == 1.0


def test_several_predictions_of_a_sample_count_as_one():
    y = np.zeros((5, 6), int)
    one = np.full((5, 6), 0.1)
    two = one.copy()
    two[0] = 0.9
    found = compare_outputs(y, [one, two], "binary", "sigmoid")
    assert (found.different, found.p_value) == (1, 1.0)
    # All of sample 0 is wrong: as one sample of 5 with one prediction each.
    same = compare_outputs(y[:, :1], [one[:, :1], two[:, :1]], "binary", "sigmoid")
    assert found == same and found.standard_error == pytest.approx(math.sqrt(1 - 1 / 5) / 5)
    logits = compare_outputs(y, [one - 0.5, two - 0.5], "binary", "linear")
    assert logits == found


class Other:
    """A target that gives another class for the last samples of a run."""

    name, source, place, wrong = "other", "simulated", None, 7

    def prepare(self, threads=1):
        pass

    def time(self, models, runs, threads):
        return [Timing(n, self.name, self.source, threads, runs, 1.0, 1.0) for n in models]

    def run(self, data, inputs):
        found = dict(Interpreter(data).run_all(inputs))
        last = slice(-self.wrong, None)
        for name in ("p", "score"):
            if name in found:
                found[name] = found[name].copy()
                found[name][last] = np.roll(found[name][last], 1, axis=-1)
        return found


@pytest.fixture
def other(monkeypatch):
    monkeypatch.setitem(TARGETS, "other", Other)
    # One batch, so that the last samples of it are those of the test set.
    monkeypatch.setattr(accuracy, "_SLOW_BATCH", COUNT)


def test_a_target_that_errs_stands_out(data, other):
    host, there = tfedge.benchmark(image(), target=["host", "other"], runs=1, task=data)
    score = there.score
    # The spoilt quarter stands first: all that differ were right on the host.
    assert score.host == host.score.scores and score.different == {"p_accuracy": 7, "q_accuracy": 0}
    assert score.scores["p_accuracy"] == pytest.approx(0.75 - 7 / COUNT)
    assert score.difference_error["p_accuracy"] == pytest.approx(math.sqrt(7 - 49 / COUNT) / COUNT)
    assert score.p_value["p_accuracy"] == pytest.approx(2 / 2**7)
    assert stands_out(score, "p_accuracy") and not stands_out(score, "q_accuracy")
    assert host.score.different == host.score.difference_error == {}
    text = text_of(scores_table([host, there]))
    assert "-17.50 ± 6.01 *" in text and "7 of 40" in text and "p = 0.016" in text
    lines = [row for row in text.splitlines() if "host, measured" in row]
    assert len(lines) == 2 and not any("+0.00" in row for row in lines)
    assert from_json(Timing, json.loads(json.dumps(to_json(there)))) == there


def test_regression_has_no_accuracy_columns(other):
    file = tflite_files.file("two", "int8")
    x = tflite_files.samples("two", 12)
    y = np.random.default_rng(0).normal(size=12)
    timings = tfedge.benchmark(file, target=["host", "other"], runs=1, task=(x, y))
    assert timings[1].score.different == {} and set(timings[1].score.scores) == {"mse", "mae"}
    found = score_rows(timings)
    assert found.header == (
        "model", "target", "samples", "score", "there", "on the host", "difference",
    )  # fmt: skip
    assert found.about == ()
    assert score_rows(timings[:1]).header == ("model", "target", "samples", "score", "there")


def test_every_kind_but_regression_is_compared():
    y = {"sparse": [0, 1], "onehot": np.eye(2), "binary": np.eye(2)}
    z = np.array([[0.9, 0.1], [0.8, 0.2]])
    for kind in (k for k in KINDS if k != "regression"):
        found = compare_outputs(np.array(y[kind]), [z, z[::-1]], kind, "sigmoid")
        assert found.different == 0
        assert score_output(np.array(y[kind]), z, kind, "sigmoid") == {"accuracy": 0.5}


def test_records_of_older_versions_are_read():
    old = {"samples": 9, "of": 9, "scores": {"accuracy": 0.5}, "host": {"accuracy": 0.25}}
    score = from_json(Score, {**old, "standard_error": {"accuracy": 0.1}, "error": ""})
    assert score.different == {} and score.note == ""
    timing = dataclasses.replace(make()[1].timing[0], target="elsewhere", score=score)
    found = score_rows([timing])
    assert "+25.00" in found.cells[0] and "predictions differ" not in found.header
    assert len(found.about) == 1


# ---- inputs beyond the file's range --------------------------------------------------------------


def test_saturated_inputs_are_said(data):
    x, y = data
    assert scored((x, y)).note == ""
    note = scored((255 * x, y)).note
    (spec,) = accuracy.tests_of(image(), (x, y))["model 0"].inputs
    high = spec.scale[0] * (127 - spec.zero_point[0])
    beyond = (255 * x > high + spec.scale[0] / 2).mean()
    assert beyond > 0.9 and note.startswith(f"{100 * beyond:.0f} % of the values of input 'image'")
    assert f"to {high:.3g})" in note and "preprocessed" in note
    assert scored((255 * x, y), tflite_files.file("image")).note == ""
    # A few outliers are no wrong preprocessing.
    some = x.copy()
    some[0] = 255.0
    assert scored((some, y)).note == ""
    timing = tfedge.benchmark(image(), runs=1, task=(255 * x, y))[0]
    assert note in text_of(scores_table([timing])).replace("\n", "")


# ---- the report of a recipe ----------------------------------------------------------------------


def test_the_report_has_the_table(tmp_path):
    records = make()
    path = tmp_path / "r.html"
    write_report(records, path)
    assert "Test samples, run there" not in path.read_text()
    score = Score(
        200, 1000, {"accuracy": 0.9}, {"accuracy": 0.91}, {"accuracy": 0.02}, "",
        {"accuracy": 2}, {"accuracy": 0.007}, {"accuracy": 0.5}, "said of it",
    )  # fmt: skip
    one = records[1].timing[0]
    records[1].timing.append(
        dataclasses.replace(one, target="sim:x", source="simulated", score=score)
    )
    write_report(records, path)
    page = path.read_text()
    assert "Test samples, run there" in page and "-1.00 ± 0.70<" in page and "2 of 200" in page
    assert "said of it" in page
    (timing,) = timings_of(records)
    assert timing.model == "baseline, float32"
