"""verify_ops: each op of a file alone against its simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfedge
from tests import zoo
from tfedge import quant
from tfedge._keras import keras
from tfedge.errors import InputError, ModelError

L = keras.layers
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def made():
    x = i = keras.Input((8, 8, 3), name="x")
    x = r = L.ReLU(name="relu")(
        L.BatchNormalization(name="bn")(L.Conv2D(8, 3, padding="same", name="c1")(x))
    )
    x = L.Conv2D(8, 3, padding="same", activation="swish", name="c2")(x)
    x = L.AveragePooling2D(name="pool")(L.Concatenate(name="cat")([L.Add(name="add")([x, r]), r]))
    x = L.GlobalAveragePooling2D(name="gap")(x)
    model = zoo.randomize(keras.Model(i, L.Dense(4, activation="softmax", name="d")(x)), 1)
    x = RNG.normal(size=(32, 8, 8, 3)).astype("float32")
    return quant.quantize_aware(model, calibration=x), x


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_every_op_is_within_a_step(made, scheme, kernels):
    aware, x = made
    file = tfedge.convert(aware, scheme)
    rows = tfedge.verify_ops(aware, file, x, kernels=kernels)
    assert [r.index for r in rows] == list(range(len(rows)))
    compared = [r for r in rows if r.elements]
    # The LOGISTIC of the swish and the product before the softmax are parts of one layer each.
    assert {r.op for r in rows} - {r.op for r in compared} <= {"LOGISTIC", "FULLY_CONNECTED"}
    assert {"LOGISTIC+MUL", "FULLY_CONNECTED+SOFTMAX"} <= {r.op for r in compared}
    for row in compared:
        if scheme == "w8a16" and "SOFTMAX" in row.op:  # the int16 kernel interpolates a table
            assert row.max_steps <= 8, row
        else:
            assert row.within_one == 1.0, row
    assert np.mean([r.exact for r in compared]) > (0.95 if scheme == "w8a8" else 0.85)


def test_an_op_that_errs_is_named(made):
    aware, x = made
    file = tfedge.convert(aware, "w8a8")
    kernel = aware.get_layer("quant_c2").layer.kernel
    before = kernel.numpy()
    kernel.assign(before * 1.02)
    try:
        rows = tfedge.verify_ops(aware, file, x)
    finally:
        kernel.assign(before)
    assert [r.layer for r in rows if r.elements and r.within_one < 1][0] in ("c2", "c2_act")


def test_wrong_use_is_refused(made):
    aware, x = made
    file = tfedge.convert(aware, "w8a8")
    with pytest.raises(InputError, match="unknown kernels"):
        tfedge.verify_ops(aware, file, x, kernels="fast")
    with pytest.raises(ModelError, match="not quantize-aware"):
        tfedge.verify_ops(keras.Sequential([keras.Input((8, 8, 3))]), file, x)


def test_the_tool_prints_ops(made, tmp_path, capsys):
    from tfedge.cli.main import main

    aware, x = made
    aware.save(tmp_path / "a.h5")
    tfedge.convert(aware, "w8a8").save(tmp_path / "a.tflite")
    np.savez(tmp_path / "x.npz", x=x[:4])
    argv = ["verify", f"--model={tmp_path}/a.h5", f"--tflite={tmp_path}/a.tflite"]
    argv += [f"--data={tmp_path}/x.npz", "--ops=builtin", f"--json={tmp_path}/ops.json"]
    assert main(argv) == 0
    assert "first op more than one step off: none" in capsys.readouterr().out
    assert json.loads((tmp_path / "ops.json").read_text())[0]["op"] == "CONV_2D"
