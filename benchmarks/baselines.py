"""Trains each reference network once and keeps its float16 weights, so that tables share a start.

    python benchmarks/baselines.py [--only resnet8] [--cifar10 FOLDER] [--force]

Finished networks are skipped; an interrupted one goes on after its last finished epoch. Beside
`baselines/NAME.npz` lies `NAME.json`: what was measured of the float16 weights, and the command.
Networks are added here with the part of the project that needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import image_data
import numpy as np

from tfedge.errors import InputError, TfedgeError, did_you_mean

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "baselines"
CHECKPOINTS = HERE.parent / "runs" / "baselines"


@dataclass(frozen=True)
class Baseline:
    """One reference network: how to build and train it.

    Attributes:
        task: Name of the data in `image_data`.
        build: Name of the builder in `tfedge.models`.
        epochs: Passes over the training part.
        optimizer: See `tfedge.train.TrainSpec`.
        learning_rate: Peak rate.
        batch_size: Samples per step.
        seed: Of weights, order and augmentation.
    """

    task: str
    build: str
    epochs: int
    optimizer: str = "adam"
    learning_rate: float = 3e-3
    batch_size: int = 128
    seed: int = 0


BASELINES: dict[str, Baseline] = {
    "resnet8": Baseline(task="fashion_mnist", build="resnet8", epochs=10),
    "resnet8_cifar10": Baseline(task="cifar10", build="resnet8", epochs=30),
    "resnet20_cifar10": Baseline(task="cifar10", build="resnet20", epochs=25),
    "mobilenet_v2_035_cifar10": Baseline(task="cifar10", build="mobilenet_v2_035", epochs=20),
    "efficientnet_cifar10": Baseline(task="cifar10", build="efficientnet_small", epochs=12),
}


def load_baseline(name: str) -> Any:
    """Returns a trained reference network.

    Args:
        name: One of `BASELINES`.

    Raises:
        InputError: Unknown name, or its weights are not kept here.
    """
    baseline = _find(name)
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        raise InputError("this baseline is not trained yet", f"'{name}'", f"Run {_command(name)}")
    model = _build(baseline)
    with np.load(path, allow_pickle=False) as arrays:
        model.set_weights([arrays[_key(v)].astype(np.float32) for v in model.weights])
    return model


def train(name: str) -> dict[str, Any]:
    """Trains a network, keeps its weights, and returns what was measured.

    Args:
        name: One of `BASELINES`.

    Raises:
        InputError: Unknown name, no data, or weights beyond float16's range.
    """
    from tfedge import train as training

    baseline = _find(name)
    clock = _clock()
    model = _build(baseline)
    task = image_data.task(baseline.task, model)
    spec = training.TrainSpec(
        epochs=baseline.epochs,
        batch_size=baseline.batch_size,
        optimizer=baseline.optimizer,
        learning_rate=baseline.learning_rate,
        seed=baseline.seed,
    )
    history = training.fit(model, task, spec, callbacks=[clock], checkpoint_dir=CHECKPOINTS / name)
    _save(name, model)
    kept = load_baseline(name)
    row = {
        "name": name,
        **asdict(baseline),
        "params": model.count_params(),
        "test": training.evaluate(kept, task),
        "validation": training.evaluate(kept, task, part="validation"),
        "seconds": round(clock.seconds, 1),
        "history": {k: [round(v, 5) for v in values] for k, values in history.items()},
        "command": _command(name),
    }
    part = FOLDER / f"{name}.json.part"
    part.write_text(json.dumps(row, indent=1) + "\n")
    part.replace(FOLDER / f"{name}.json")
    return row


def _clock() -> Any:
    """A callback that adds up the seconds of all epochs, across interruptions."""
    from tfedge._keras import keras

    class Clock(keras.callbacks.Callback):
        seconds = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds += time.monotonic() - self.began

        def get_state(self) -> dict[str, float]:
            return {"seconds": self.seconds}

        def set_state(self, state: dict[str, float]) -> None:
            self.seconds = state["seconds"]

    return Clock()


def _kept(name: str) -> dict[str, Any] | None:
    """The row of a finished network; None where it is missing or of other settings."""
    path = FOLDER / f"{name}.json"
    if not path.exists() or not (FOLDER / f"{name}.npz").exists():
        return None
    row = json.loads(path.read_text())
    same = all(row.get(k) == v for k, v in asdict(BASELINES[name]).items())
    return row if same else None


def _find(name: str) -> Baseline:
    if name not in BASELINES:
        raise InputError("unknown baseline", f"'{name}'", did_you_mean(name, BASELINES))
    return BASELINES[name]


def _build(baseline: Baseline) -> Any:
    from tfedge._keras import keras
    from tfedge.models import MODELS

    builder: Callable[..., Any] = MODELS[baseline.build]
    keras.utils.set_random_seed(baseline.seed)
    return builder(image_data.SHAPES[baseline.task])


def _save(name: str, model: Any) -> None:
    """Writes the weights by variable name as float16, beside the old file and then over it."""
    arrays = {_key(v): v.numpy().astype(np.float16) for v in model.weights}
    if len(arrays) != len(model.weights) or not all(np.isfinite(a).all() for a in arrays.values()):
        raise InputError("these weights cannot be kept as float16", f"'{name}'")
    FOLDER.mkdir(exist_ok=True)
    part = FOLDER / f"{name}.npz.part"
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(FOLDER / f"{name}.npz")


def _key(variable: Any) -> str:
    return variable.name.partition(":")[0]


def _command(name: str) -> str:
    return f"python benchmarks/baselines.py --only {name}"


def main(argv: list[str] | None = None) -> int:
    """Trains what is missing and prints one line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="train this one (default: all)")
    parser.add_argument("--cifar10", help="folder of CIFAR-10's images")
    parser.add_argument("--force", action="store_true", help="train again what is kept")
    flags = parser.parse_args(argv)
    if flags.cifar10:
        os.environ[image_data.CIFAR10] = flags.cifar10
    try:
        names = [flags.only] if flags.only else list(BASELINES)
        for name in names:
            data = _find(name).task
            if not flags.only and _kept(name) is None and not image_data.is_there(data):
                print(f"{name}: left out, its images are not named (--{data}=FOLDER)")
                continue
            if flags.force:
                (CHECKPOINTS / name / "checkpoint.npz").unlink(missing_ok=True)
                (FOLDER / f"{name}.json").unlink(missing_ok=True)
            row = _kept(name) or train(name)
            scores = ", ".join(f"{k} {v:.4f}" for k, v in row["test"].items())
            print(f"{name}: {scores} (test), {row['epochs']} epochs, {row['seconds']:.0f} s")
    except TfedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
