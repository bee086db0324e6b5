"""What quantization-aware training costs beside float training and beside tfmot's own.

Each row is one network. Wrapping, the first step (with tracing) and later steps of the float model,
of tfedge's range modes and of tfmot's `quantize_model`, all of the same float model in one process.
Steps run in rounds in which every model has its turn. The columns are ratios to float: the least of
the rounds and the median of the rounds' own ratios, of CPU time and of wall time. CPU time is what
a busy machine leaves alone.
"""

from __future__ import annotations

import gc
import logging
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rows import main

BATCH = 32
ROUNDS = (4, 12)  # At least, and at most
SECONDS = 150  # of CPU time after which no further round begins
STEPS = 3  # of each model in a round
NETS = ("resnet20@32", "mobilenet_v2_035@96", "MobileNetV2(0.35)@96", "MobileNetV2(1.0)@96")


def network(row: str) -> Any:
    """A float network by row name: tfedge.models, or tf_keras.applications with the width."""
    from tfedge._keras import keras
    from tfedge.models import MODELS

    name, size = row.split("@")
    shape = (int(size), int(size), 3)
    if name in MODELS:
        return MODELS[name](shape)
    width = float(name.split("(")[1].rstrip(")"))
    return keras.applications.MobileNetV2(
        shape, alpha=width, weights=None, classes=10, classifier_activation=None
    )


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU seconds and wall seconds."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def makers(model: Any, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """How each contender is made of the float model."""
    from tensorflow_model_optimization.quantization.keras import quantize_model

    from tfedge import quant

    def ours(mode: str) -> Callable[[], Any]:
        return lambda: quant.quantize_aware(model, calibration=x, ranges=mode)

    return {"tfmot": lambda: quantize_model(model), **{m: ours(m) for m in quant.RANGE_MODES}}


def measure(row: str) -> dict[str, Any]:
    """Wrapping seconds, first-step and step ratios."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tfedge import quant
    from tfedge._keras import keras, tf

    logging.getLogger("absl").setLevel(logging.ERROR)
    model = network(row)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(BATCH, *model.input_shape[1:])).astype("float32")
    y = tf.constant(rng.integers(0, 10, BATCH))
    quant.quantize_aware(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))  # Imports.
    columns: dict[str, Any] = {}
    models = {"float": model}
    _, cpu, wall = timed(lambda: quant.quantize_aware(model))
    columns["wrap s"] = f"{cpu:.1f}/{wall:.1f}"
    for name, make in makers(model, x).items():
        models[name], cpu, wall = timed(make)
        columns[f"{name}: make s"] = f"{cpu:.1f}/{wall:.1f}"
    fit = _steps(models, tf.constant(x), y)
    for name, (first, cpus, walls) in fit.items():
        if name == "float":
            columns["float: first s, step ms"] = f"{first:.1f}, {1e3 * min(cpus):.0f}"
            continue
        base = fit["float"]
        columns[f"{name}: first"] = round(first / base[0], 2)
        columns[f"{name}: cpu"] = _ratio(cpus, base[1])
        columns[f"{name}: wall"] = _ratio(walls, base[2])
    return columns


def _ratio(times: list[float], base: list[float]) -> str:
    """Ratio of the least, and median of the paired ratios."""
    median = statistics.median(t / b for t, b in zip(times, base, strict=True))
    return f"{min(times) / min(base):.2f} ({median:.2f})"


def _steps(models: dict[str, Any], x: Any, y: Any) -> dict[str, tuple[float, list, list]]:
    """CPU seconds of the first step, and CPU and wall seconds of a step in each round."""
    from tfedge._keras import keras

    found: dict[str, tuple[float, list, list]] = {}
    for name, model in {"warm-up": keras.models.clone_model(models["float"]), **models}.items():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        _, cpu, _ = timed(lambda model=model: model.train_on_batch(x, y))
        found[name] = (cpu, [], [])
    del found["warm-up"]  # The first training of a process pays for what all share.
    begun = time.process_time()
    for count in range(ROUNDS[1]):
        if count >= ROUNDS[0] and time.process_time() - begun > SECONDS:
            break
        for name, model in models.items():
            _, cpu, wall = timed(
                lambda model=model: [model.train_on_batch(x, y) for _ in range(STEPS)]
            )
            found[name][1].append(cpu / STEPS)
            found[name][2].append(wall / STEPS)
    return found


if __name__ == "__main__":
    main("qat_cost", NETS, measure, __doc__ or "")
