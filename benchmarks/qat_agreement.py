"""Whether trained quantize-aware models agree with their files, op by op and at the logits.

    python benchmarks/qat_agreement.py [--cifar10 FOLDER] [--only MODEL/SCHEME] [--force]

The kept baselines (benchmarks/baselines.py), ranges calibrated on 256 training images and trained
for one epoch. One row a model and scheme, under each kind of kernels: of each op alone, fed the
file's own codes (8 test images), the share of elements within one step of the simulation (the least
of all ops), and of equal codes; at the logits of 2,000 test images the shares within one and two
steps, the largest distance, and how often the best class is the same; accuracy of both.
"""

from __future__ import annotations

from typing import Any

import image_data
import numpy as np
import rows

# Name in benchmarks/baselines/ -> its data.
MODELS = {
    "resnet8": "fashion_mnist",
    "resnet8_cifar10": "cifar10",
    "mobilenet_v2_035_cifar10": "cifar10",
    "resnet20_cifar10": "cifar10",
}
SCHEMES = ("w8a8", "w8a16", "w4a8")
KERNELS = ("xnnpack", "builtin", "reference")
IMAGES, OP_IMAGES, RATE = 2000, 8, 2e-4


def measure(row: str) -> dict[str, Any]:
    """The columns of one row."""
    import tfedge
    from tfedge._keras import keras

    name, scheme = row.split("/")
    keras.utils.set_random_seed(0)
    aware, task = trained(name, scheme)
    file = tfedge.convert(aware, scheme)
    x, y = images(task)
    want = aware.predict(x, batch_size=250, verbose=0)
    columns: dict[str, Any] = {"accuracy of the model": f"{np.mean(want.argmax(1) == y):.2%}"}
    for kernels in KERNELS:
        ops = tfedge.verify_ops(aware, file, x, kernels=kernels, limit=OP_IMAGES)
        found = {**_by_op([r for r in ops if r.elements]), **_logits(file, kernels, x, y, want)}
        columns |= {f"{kernels}: {name}": value for name, value in found.items()}
    return columns


def _by_op(ops: list[Any]) -> dict[str, Any]:
    total = sum(r.elements for r in ops)
    return {
        "ops": len(ops),
        "each op within 1": f"{min(r.within_one for r in ops):.2%}",
        "equal codes": f"{sum(r.exact * r.elements for r in ops) / total:.2%}",
    }


def _logits(
    file: Any, kernels: str, x: np.ndarray, y: np.ndarray, want: np.ndarray
) -> dict[str, Any]:
    from tfedge.tflite.interpreter import Interpreter
    from tfedge.tflite.tensors import codes

    runner = Interpreter(file.data, threads=2, kernels=kernels)
    got = next(iter(runner.predict(x).values()))
    steps = np.abs(codes(got, runner.outputs[0]) - codes(want, runner.outputs[0]))
    return {
        "logits within 1": f"{np.mean(steps <= 1):.2%}",
        "within 2": f"{np.mean(steps <= 2):.2%}",
        "most": float(steps.max()),
        "same class": f"{np.mean(got.argmax(1) == want.argmax(1)):.2%}",
        "accuracy": f"{np.mean(got.argmax(1) == y):.2%}",
    }


def trained(name: str, scheme: str) -> tuple[Any, Any]:
    """The quantize-aware baseline after an epoch, and its task."""
    import warnings

    from baselines import load_baseline

    from tfedge import quant, train

    model = load_baseline(name)
    task = image_data.task(MODELS[name], model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", quant.QuantizationWarning)
        aware = quant.quantize_aware(model, scheme, task.calibration(256))
    train.fit(aware, task, train.TrainSpec(epochs=1, learning_rate=RATE, validate=False))
    return aware, task


def images(task: Any) -> tuple[np.ndarray, np.ndarray]:
    """Test images of all classes, which a folder has one after the other, and their labels."""
    x, y = task.test_arrays(None)
    labels = np.ravel(next(iter(y.values())) if isinstance(y, dict) else y)
    every = len(labels) // IMAGES
    return (next(iter(x.values())) if isinstance(x, dict) else x)[::every], labels[::every]


def main() -> None:
    """Measures what is missing and prints the table."""
    image_data.take_flag()
    known = [m for m, data in MODELS.items() if image_data.is_there(data)]
    names = [f"{m}/{s}" for m in known for s in SCHEMES]
    rows.main("qat_agreement", names, measure, __doc__ or "")


if __name__ == "__main__":
    main()
