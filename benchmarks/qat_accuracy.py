"""Accuracy of the integer file: after calibration alone, tfmot's own training, and tfedge's.

    python benchmarks/qat_accuracy.py --cifar10 FOLDER [--only MODEL/METHOD/SCHEME/SEED] [--force]

From the kept CIFAR-10 baselines (benchmarks/baselines.py): float32; `ptq` (tfedge.convert with 256
training images); `tfmot` (its quantize_model, w8a8 only) and `tfedge` (quantize_aware, calibrated
on the same images), trained alike for EPOCHS epoch at a peak rate of RATE, over three seeds (order
and augmentation of the data). Accuracies are those of the .tflite file on all test images; of
trained models also that of the Keras model, and how far both agree at the logits. The summary gives
mean, spread (standard deviation over seeds) and differences in points.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import image_data
import numpy as np
import rows

MODELS = {"resnet20": "resnet20_cifar10", "mobilenet_v2_035": "mobilenet_v2_035_cifar10"}
SCHEMES = ("w8a8", "w8a16", "w4a8")
SEEDS = (0, 1, 2)
CALIBRATION, EPOCHS, RATE = 256, 1, 2e-4


def every_row() -> list[str]:
    """Names of all rows."""
    found = []
    for model in MODELS:
        found += [f"{model}/float/float32/0", *(f"{model}/ptq/{s}/0" for s in SCHEMES)]
        for seed in SEEDS:
            found += [f"{model}/tfedge/{s}/{seed}" for s in SCHEMES]
            found.append(f"{model}/tfmot/w8a8/{seed}")
    return found


def measure(row: str) -> dict[str, Any]:
    """The columns of one row."""
    from baselines import load_baseline

    name, method, scheme, seed = row.split("/")
    model = load_baseline(MODELS[name])
    task = image_data.task("cifar10", model)
    if method in ("float", "ptq"):
        return _converted(model, task, scheme)
    return _trained(model, task, method, scheme, int(seed))


def _converted(model: Any, task: Any, scheme: str) -> dict[str, Any]:
    import tfedge

    samples = None if scheme == "float32" else task.calibration(CALIBRATION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = tfedge.convert(model, scheme, calibration=samples)
    x, y = test_images(task)
    return {"accuracy": accuracy(outputs(file, x), y), "bytes": len(file.data)}


def _trained(model: Any, task: Any, method: str, scheme: str, seed: int) -> dict[str, Any]:
    import tfedge
    from tfedge import train

    aware = quantized(model, task, method, scheme)
    spec = train.TrainSpec(epochs=EPOCHS, learning_rate=RATE, seed=seed, validate=False)
    began = time.monotonic()
    train.fit(aware, task, spec)
    took = time.monotonic() - began
    file = tfedge.convert(aware, scheme)
    x, y = test_images(task)
    got, want = outputs(file, x), aware.predict(x, batch_size=250, verbose=0)
    return {
        "accuracy": accuracy(got, y),
        "model": accuracy(want, y),
        "validation": train.evaluate(aware, task, part="validation")["accuracy"],
        **agreement(file, got, want),
        "seconds": round(took, 1),
        "bytes": len(file.data),
    }


def quantized(model: Any, task: Any, method: str, scheme: str) -> Any:
    """The quantize-aware model, by tfmot alone or by tfedge."""
    if method == "tfmot":
        from tensorflow_model_optimization.quantization.keras import quantize_model

        return quantize_model(model)
    from tfedge import quant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", quant.QuantizationWarning)
        return quant.quantize_aware(model, scheme, task.calibration(CALIBRATION))


def test_images(task: Any) -> tuple[np.ndarray, np.ndarray]:
    """All test images and their classes."""
    x, y = task.test_arrays(None)
    labels = next(iter(y.values())) if isinstance(y, dict) else y
    return next(iter(x.values())) if isinstance(x, dict) else x, np.ravel(labels)


def outputs(file: Any, x: np.ndarray) -> np.ndarray:
    """The file's logits, float32."""
    from tfedge.tflite.interpreter import Interpreter

    return next(iter(Interpreter(file.data, threads=2).predict(x).values()))


def accuracy(logits: np.ndarray, classes: np.ndarray) -> float:
    """Share of the samples whose best class is right."""
    return round(float(np.mean(logits.argmax(1) == classes)), 4)


def agreement(file: Any, got: np.ndarray, want: np.ndarray) -> dict[str, float]:
    """How far the file's logits are from the Keras model's, in steps."""
    from tfedge.tflite.interpreter import Interpreter
    from tfedge.tflite.tensors import codes

    spec = Interpreter(file.data).outputs[0]
    steps = np.abs(codes(got, spec) - codes(want, spec))
    return {
        "within 1": round(float(np.mean(steps <= 1)), 4),
        "within 2": round(float(np.mean(steps <= 2)), 4),
        "same class": round(float(np.mean(got.argmax(1) == want.argmax(1))), 4),
    }


def summary(table: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a model, method and scheme: mean, spread, differences in points."""
    runs: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row, columns in table.items():
        if "accuracy" in columns:
            runs.setdefault(tuple(row.split("/")[:3]), []).append(columns)
    means = {key: 100 * mean(c["accuracy"] for c in found) for key, found in runs.items()}
    lines = []
    for key, found in runs.items():
        model, method, scheme = key
        values = [100 * c["accuracy"] for c in found]
        line: dict[str, Any] = {"model": model, "method": method, "scheme": scheme}
        line |= {"runs": len(found), "accuracy": f"{means[key]:.2f}"}
        line["spread"] = f"{stdev(values):.2f}" if len(values) > 1 else ""
        for name, other in (
            ("to float", (model, "float", "float32")),
            ("to tfmot", (model, "tfmot", scheme)),
        ):
            line[name] = f"{means[key] - means[other]:+.2f}" if other in means else ""
        for name in ("within 1", "within 2", "same class"):
            parts = [c[name] for c in found if name in c]
            line[name] = f"{min(parts):.2%}" if parts else ""
        lines.append(line)
    return lines


def report(path: Path) -> None:
    """Prints the summary of a result file, and writes it beside it."""
    lines = summary(json.loads(path.read_text())) if path.exists() else []
    if not lines:
        return
    text = ["| " + " | ".join(lines[0]) + " |", "|---" * len(lines[0]) + "|"]
    text += ["| " + " | ".join(str(v) for v in line.values()) + " |" for line in lines]
    print("\n" + "\n".join(text))
    path.with_suffix(".md").write_text("\n".join(text) + "\n")


def main() -> None:
    """Measures what is missing and prints the summary."""
    image_data.take_flag()
    rows.main("qat_accuracy", every_row(), measure, __doc__ or "")
    if not any(a.startswith("--row") for a in sys.argv):
        report(rows.RESULTS / "qat_accuracy.json")


if __name__ == "__main__":
    main()
