"""benchmarks/distill.py: its summary says what the rows say, and where a method does not help."""

import importlib
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("distill")


def rows(**accuracies):
    return {
        f"fashion_mnist/{method}/{seed}": {"accuracy": value, "baseline": 0.92}
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    }


def test_summary(script):
    table = rows(
        none=(0.900, 0.902, 0.901), soft=(0.911, 0.914, 0.912), all=(0.902, 0.901, 0.902),
        features=(0.880, 0.881, 0.883),
    )  # fmt: skip
    table["fashion_mnist/cost/0"] = {"ms a step": 3}
    table["fashion_mnist/soft/9"] = {"error": "not finished"}
    lines = {line["method"]: line for line in script.summary(table, "fashion_mnist")}
    assert set(lines) == {"none", "soft", "all", "features"}
    assert lines["none"]["mean"] == pytest.approx(90.1) and lines["soft"]["runs"] == 3
    assert lines["soft"]["difference"] == pytest.approx(1.133, abs=1e-3)
    assert lines["soft"]["recovered"] == pytest.approx(1.1333 / 1.9, abs=1e-3)
    assert lines["none"]["spread"] == pytest.approx(0.1)
    verdicts = {m: line.get("verdict") for m, line in lines.items()}
    assert verdicts == {
        "none": None, "soft": "better", "all": "no clear difference", "features": "worse"
    }  # fmt: skip
    text = script.markdown(list(lines.values()))
    assert "| fashion_mnist | soft | 3 | 91.23 | 0.15 | +1.13 |" in text and "60%" in text
    assert not script.summary(table, "cifar10")


def test_one_seed_proves_nothing(script):
    lines = script.summary(rows(none=(0.9,), soft=(0.95,)), "fashion_mnist")
    assert math.isnan(lines[0]["spread"]) and lines[1]["verdict"] == "no clear difference"


def test_plot_holds_every_run(script):
    table = rows(none=(0.90, 0.91), soft=(0.92, 0.93))
    svg = script.plot(table, script.summary(table, "fashion_mnist"))
    tags = [e.tag.rpartition("}")[2] for e in ElementTree.fromstring(svg).iter()]
    assert tags.count("circle") == 4 and tags.count("path") == 2


def test_methods_are_arguments_of_the_distiller(script):
    from tests.distill_nets import net
    from tfedge._keras import keras
    from tfedge.prune import shrink

    teacher = net(keras, 16)
    for method in {**script.METHODS, **script.EXTRA}:
        done = shrink(teacher, 0.5, round_to=1)
        learner = script.learner_of(method, done, teacher)
        assert (learner is done.model) == (method == script.PLAIN)
