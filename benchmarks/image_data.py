"""The image data that baselines and benchmarks share, by name.

Fashion-MNIST comes with tfedge. CIFAR-10 is read from a folder of images of 32x32 pixels,
FOLDER/{train,test}/CLASS/*.jpg, that the environment variable TFEDGE_CIFAR10 or --cifar10 names.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from tfedge.errors import InputError

CIFAR10 = "TFEDGE_CIFAR10"
# Inputs of the reference networks, and the pixels that training images are shifted by.
SHAPES = {"fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
SHIFT = 2


def take_flag() -> None:
    """Takes --cifar10=FOLDER from the command line, for this process and those of its rows."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--cifar10")
    own, sys.argv[1:] = parser.parse_known_args()
    if own.cifar10:
        os.environ[CIFAR10] = own.cifar10


def is_there(name: str) -> bool:
    """False where the images of a data set have to be named first."""
    return name != "cifar10" or bool(os.environ.get(CIFAR10))


def task(name: str, model: Any) -> Any:
    """The task of a data set, bound to a model.

    Args:
        name: One of `SHAPES`.
        model: A tf_keras model.

    Raises:
        InputError: The images of CIFAR-10 are not named or not there.
    """
    from tfedge.augment import shift_and_flip
    from tfedge.task import get_task

    if name != "cifar10":
        return get_task(name, model=model)
    folder = os.environ.get(CIFAR10, "")
    if not folder or not Path(folder).is_dir():
        fix = "Give --cifar10=FOLDER: FOLDER/{train,test}/CLASS/*.jpg"
        raise InputError("the images of CIFAR-10 are not there", f"'{folder}'", fix)
    found = get_task(folder, model=model)
    return dataclasses.replace(found, augment=shift_and_flip(SHIFT), name="cifar10")


def part(found: Any, train: int, test: int) -> Any:
    """The first samples of a task's parts; for trying a script out.

    Args:
        found: A task of `task`.
        train: Training samples.
        test: Samples of each of the other parts.
    """
    cut = {
        name: dataclasses.replace(source, indices=source.indices[:: max(1, source.size // n)][:n])
        for name, source, n in (
            ("train", found.train, train),
            ("test", found.test, test),
            ("validation", found.validation, test),
        )
    }
    return dataclasses.replace(found, **cut)
