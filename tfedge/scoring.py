"""What labels mean beside a model's output, and how good the outputs are (numpy only)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.errors import InputError

KINDS = ("sparse", "onehot", "binary", "regression")


def resolve_kind(y: np.ndarray, shape: Sequence[int | None], activation: str) -> str:
    """Tells what the labels of one output are.

    Args:
        y: Some of the labels, [n, ...].
        shape: The output's shape, the batch first.
        activation: The output's last activation, "" where it is not known.

    Returns:
        "sparse" (class numbers), "onehot" (one row of class probabilities per sample), "binary"
        (0 or 1 for each unit: one unit, or several labels per sample) or "regression". Labels 0
        and 1 of an integer type beside one linear unit are read as "binary", its output as logit.

    Raises:
        InputError: The labels fit none of these.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "biuf":
        raise InputError("labels must be numbers", f"dtype {y.dtype}", "Number the classes from 0")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise InputError("labels hold NaN or infinity", "", "Clean the data first")
    units = shape[-1] if len(shape) > 1 else 1
    if units == 1:
        return _kind_of_one_unit(y, activation)
    if y.ndim == len(shape) and y.shape[-1] == units:
        return _kind_of_rows(y, activation)
    if y.ndim == len(shape) - 1 or (y.ndim == len(shape) and y.shape[-1] == 1):
        return _kind_of_numbers(y, units)
    raise InputError(
        "labels do not fit the model's output",
        f"labels of shape {y.shape} beside an output of shape {tuple(shape)}",
        "Give class numbers [N], one-hot rows or targets of the output's shape",
    )


def _kind_of_one_unit(y: np.ndarray, activation: str) -> str:
    if y.size > len(y) and y.ndim == 2:
        raise InputError(
            "labels do not fit the model's output",
            f"labels of shape {y.shape} beside one output unit",
            "Give one number per sample",
        )
    zero_one = bool(np.isin(y, (0, 1)).all())
    if activation == "sigmoid" or (zero_one and y.dtype.kind in "biu"):
        if y.size and (y.min() < 0 or y.max() > 1):
            raise InputError(
                "labels of a sigmoid output must lie between 0 and 1",
                f"values from {y.min()} to {y.max()}",
            )
        return "binary"
    return "regression"


def _kind_of_rows(y: np.ndarray, activation: str) -> str:
    if activation == "softmax":
        return "onehot"
    if activation == "sigmoid":
        return "binary"
    if not np.isin(y, (0, 1)).all():
        return "regression"
    return "onehot" if (y.sum(axis=-1) == 1).all() else "binary"


def _kind_of_numbers(y: np.ndarray, units: int | None) -> str:
    if not np.array_equal(y, np.round(y)) or (y.size and y.min() < 0):
        raise InputError(
            "labels are no class numbers",
            f"values from {y.min()} to {y.max()}, dtype {y.dtype}",
            f"Number the classes from 0, or give targets of {units} values per sample",
        )
    if units is not None and y.size and y.max() >= units:
        raise InputError(
            "a label is larger than the model's number of classes",
            f"label {int(y.max())}, {units} output units",
            "Number the classes from 0",
        )
    return "sparse"


def is_logit(kind: str, activation: str) -> bool:
    """True where the output of a classification head must still pass a softmax or sigmoid."""
    return activation != ("sigmoid" if kind == "binary" else "softmax")


def score_output(
    y: np.ndarray, output: np.ndarray, kind: str, activation: str = ""
) -> dict[str, float]:
    """Scores one output.

    Args:
        y: Labels [N, ...].
        output: Model outputs [N, ...] in real values (not quantized codes).
        kind: One of `KINDS`.
        activation: The output's last activation; decides the threshold of "binary": 0.5 for
            probabilities ("sigmoid"), 0 for logits.

    Returns:
        {"accuracy": share of right answers, 0 to 1}; for "regression" {"mse": mean of squared
        differences, "mae": mean of absolute ones}.

    Raises:
        InputError: Different numbers of samples.
    """
    y, output = np.asarray(y), np.asarray(output)
    if len(y) != len(output):
        raise InputError("labels and outputs differ in number", f"{len(y)} and {len(output)}")
    if kind != "regression":
        guess = _predictions(output, kind, activation)
        return {"accuracy": float(np.mean(guess == _truth(y, guess, kind)))}
    difference = output.astype(np.float64) - y.reshape(output.shape)
    return {
        "mse": float(np.mean(np.square(difference))),
        "mae": float(np.mean(np.abs(difference))),
    }


def _predictions(output: np.ndarray, kind: str, activation: str) -> np.ndarray:
    """The best classes, or for "binary" whether each unit says yes."""
    if kind != "binary":
        return output.argmax(axis=-1)
    return output > (0.0 if is_logit(kind, activation) else 0.5)


def _truth(y: np.ndarray, guess: np.ndarray, kind: str) -> np.ndarray:
    if kind == "onehot":
        return y.argmax(axis=-1)
    return y.reshape(guess.shape) > 0.5 if kind == "binary" else y.reshape(guess.shape)


@dataclass(frozen=True)
class Paired:
    """How two classifiers compare on the same samples.

    Attributes:
        different: Samples with a prediction (best class, or label above the threshold) that is
            not the other's.
        standard_error: Of the difference between the two accuracies. With one prediction per
            sample, b samples that only the first has right and c that only the second has, it is
            McNemar's sqrt(b + c - (b - c)^2 / n) / n. With several (pixels, labels) it is that
            of the mean over samples of the difference in the share of right ones, of which the
            former is a case: predictions within a sample are not independent.
        p_value: Exact McNemar test, two-sided: how likely a split of the b + c samples as uneven
            as this one is by chance; b and c count the samples where the share is larger or
            smaller (a sign test where there are several predictions per sample).
    """

    different: int
    standard_error: float
    p_value: float


def compare_outputs(
    y: np.ndarray, outputs: Sequence[np.ndarray], kind: str, activation: str = ""
) -> Paired:
    """Compares two classifiers' outputs for the same samples.

    Args:
        y: Labels [N, ...].
        outputs: Two arrays [N, ...] of real values.
        kind: One of `KINDS` but "regression".
        activation: As for `score_output`.
    """
    guesses = [_predictions(np.asarray(o), kind, activation) for o in outputs]
    count = len(guesses[0])
    one, two = ((g == _truth(np.asarray(y), g, kind)).reshape(count, -1) for g in guesses)
    differs = (guesses[0] != guesses[1]).reshape(count, -1).any(axis=1)
    more = one.sum(axis=1) - two.sum(axis=1)
    share = more / one.shape[1]
    error = math.sqrt(float(share.var()) / count)
    return Paired(int(differs.sum()), error, _mcnemar(int((more > 0).sum()), int((more < 0).sum())))


def _mcnemar(b: int, c: int) -> float:
    """Twice the lower tail of the binomial distribution of b + c fair draws, at most 1."""
    n, few = b + c, range(min(b, c) + 1)
    log = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in few]
    return min(1.0, 2.0 * sum(math.exp(v - n * math.log(2)) for v in log))


def by_output(values: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """Labels or outputs by output name.

    Args:
        values: A dict by output name, a list or tuple in the outputs' order, or one array.
        names: The output names, in order.
        what: What messages call them, "labels" or "outputs".

    Raises:
        InputError: A name is missing, or their number is not that of the outputs.
    """
    if isinstance(values, Mapping):
        if len(names) == len(values) == 1:
            return {names[0]: next(iter(values.values()))}
        missing = [n for n in names if n not in values]
        if missing:
            keys = ", ".join(f"'{k}'" for k in values)
            raise InputError(f"{what} lack the output '{missing[0]}'", f"the keys {keys}")
        return {n: values[n] for n in names}
    if len(names) == 1:
        if isinstance(values, (list, tuple)) and len(values) == 1:
            values = values[0]
        return {names[0]: values}
    if not isinstance(values, (list, tuple)) or len(values) != len(names):
        found = f"{len(values)}" if isinstance(values, (list, tuple)) else "one array"
        raise InputError(f"{what} must be given for each of {len(names)} outputs", found)
    return dict(zip(names, values, strict=True))


def as_arrays(value: Any) -> Any:
    """Tensors to arrays, in whatever structure they stand."""
    if isinstance(value, dict):
        return {k: as_arrays(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(as_arrays(v) for v in value)
    return np.asarray(value)


def joined(parts: Sequence[Any]) -> Any:
    """Batches to one array each, in their structure; a single named output as its array."""
    first = parts[0]
    if isinstance(first, dict):
        by_name = {k: np.concatenate([p[k] for p in parts]) for k in first}
        return next(iter(by_name.values())) if len(by_name) == 1 else by_name
    if isinstance(first, tuple):
        return tuple(np.concatenate([p[i] for p in parts]) for i in range(len(first)))
    return np.concatenate(parts)
