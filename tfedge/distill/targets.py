"""Soft targets: what is compared at each output, by the kind of the output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.distill import losses
from tfedge.errors import InputError, did_you_mean
from tfedge.heads import Head

KINDS = ("softmax", "sigmoid", "regression", "huber")
# Keras's losses of regression, by class, function and short name.
_REGRESSION_LOSSES = frozenset(
    "meansquarederror mse meanabsoluteerror mae logcosh poisson cosinesimilarity "
    "meanabsolutepercentageerror mape meansquaredlogarithmicerror msle kldivergence".split()
)
_HUBER = ("huber", "huberloss")

Heat = Callable[[Any, Any, str], Any]
"""(teacher's logits, student's logits, kind) -> the temperature of this moment."""


class Target(ABC):
    """Compares some outputs of a teacher and the student.

    Attributes:
        name: Kind of the outputs.
        index: Number of the output whose sample weights and labels count here.
        weight: Of this target in the soft loss.
    """

    name: str
    index: int
    weight: float

    @abstractmethod
    def loss(self, teacher: Sequence[Any], student: Sequence[Any], heat: Heat) -> Any:
        """The soft loss: all outputs of both, in the student's order -> float32 [N]."""

    def has_cost(self, labelled: bool) -> bool:
        """Whether `cost` says how bad a teacher is, with or without labels."""
        return False

    def cost(self, teacher: Sequence[Any], labels: Any) -> Any:
        """How bad a teacher is at each sample, to weight several teachers by; float32 [N].

        Args:
            teacher: All its outputs.
            labels: Labels of output `index`, or None without labels.
        """
        raise NotImplementedError

    @property
    def heated(self) -> bool:
        """The temperature counts here."""
        return True


@dataclass(frozen=True)
class OutputTarget(Target):
    """One output: classes, labels or numbers.

    Attributes:
        name: The kind, one of `KINDS`.
        index: Number of the output.
        weight: Of this output.
        activations: Last activation of the teacher's and of the student's output.
        delta: Of Huber's loss.
    """

    name: str
    index: int
    weight: float
    activations: tuple[str, str]
    delta: float = 1.0

    @property
    def heated(self) -> bool:
        """True for classes and labels."""
        return self.name in ("softmax", "sigmoid")

    def loss(self, teacher: Sequence[Any], student: Sequence[Any], heat: Heat) -> Any:
        """See `Target.loss`."""
        theirs, mine = teacher[self.index], student[self.index]
        if self.name == "regression":
            return losses.squared_error(theirs, mine)
        if self.name == "huber":
            return losses.huber_error(theirs, mine, self.delta)
        theirs = losses.to_logits(theirs, self.activations[0])
        mine = losses.to_logits(mine, self.activations[1])
        function = losses.softened_kl if self.name == "softmax" else losses.softened_binary_kl
        return function(theirs, mine, heat(theirs, mine, self.name))

    def has_cost(self, labelled: bool) -> bool:
        """See `Target.has_cost`; numbers need labels."""
        return labelled or self.heated

    def cost(self, teacher: Sequence[Any], labels: Any) -> Any:
        """Cross-entropy (numbers: squared error) with the labels; without labels the entropy."""
        output = teacher[self.index]
        if not self.heated:
            return losses.squared_error(tf.reshape(labels, tf.shape(output)), output)
        logits = losses.to_logits(output, self.activations[0])
        if labels is None:
            return losses.per_sample(losses.entropy(logits, self.name))
        if self.name == "softmax":
            return losses.per_sample(_cross_entropy(labels, logits))
        truth = tf.cast(tf.reshape(labels, tf.shape(logits)), tf.float32)
        return losses.per_sample(
            tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits)
        )


def _cross_entropy(labels: Any, logits: Any) -> Any:
    """Of class numbers [N, ...] or [N, ..., 1], or of shares [N, ..., C]."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == logits.shape.rank and labels.shape[-1] != 1:
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, tf.float32), logits)
    numbers = tf.reshape(tf.cast(labels, tf.int32), tf.shape(logits)[:-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=numbers, logits=logits)


def kinds_by_name(kind: Any, outputs: tuple[Head, ...]) -> dict[str, Any]:
    """Checks the option `kind` and gives one kind a output.

    Args:
        kind: "auto", one of `KINDS`, a detection head, or a mapping of these by output name.
        outputs: The student's outputs.

    Raises:
        InputError: An unknown kind or output.
    """
    from tfedge.distill.detection import YoloHead

    names = [h.name for h in outputs]
    by_name = dict(kind) if isinstance(kind, Mapping) else dict.fromkeys(names, kind)
    for name, value in by_name.items():
        if name not in names:
            raise InputError("kind names an unknown output", f"'{name}'", f"Outputs: {names}")
        if isinstance(value, YoloHead):
            continue
        if value == "detection":
            fix = "Give tfedge.distill.YoloHead(classes=..., anchors=...) or DetectionOutputs(...)"
            raise InputError("a detection head needs its layout", "kind='detection'", fix)
        if value not in (*KINDS, "auto"):
            fix = did_you_mean(str(value), ("auto", *KINDS))
            raise InputError("unknown kind of output", f"'{value}'", fix)
    return {n: by_name.get(n, "auto") for n in names}


def losses_by_output(loss: Any, outputs: tuple[Head, ...]) -> list[Any]:
    """The compiled loss of each output; None where there is none."""
    if isinstance(loss, Mapping):
        return [loss.get(h.name) for h in outputs]
    if isinstance(loss, (list, tuple)):
        return [*loss, *[None] * len(outputs)][: len(outputs)]
    return [loss] * len(outputs)


def weights_by_output(given: Any, outputs: tuple[Head, ...]) -> list[float]:
    """The compiled loss weight of each output."""
    if given is None:
        return [1.0] * len(outputs)
    if isinstance(given, Mapping):
        return [float(given.get(h.name, 1.0)) for h in outputs]
    parts = list(given) if isinstance(given, (list, tuple)) else [given]
    return [float(p) for p in parts]


def kind_of(head: Head, loss: Any) -> str:
    """The kind of an output by its loss, else by its activation."""
    name = _loss_name(loss)
    if "categorical" in name:
        return "softmax"
    if "binary" in name:
        return "sigmoid"
    if head.activation in ("softmax", "sigmoid"):
        return head.activation
    if name in _HUBER:
        return "huber"
    if name in _REGRESSION_LOSSES or head.units == 1:
        return "regression"
    return "softmax"


def _loss_name(loss: Any) -> str:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return "" if loss is None else name.replace("_", "").lower()


def delta_of(loss: Any) -> float:
    """The delta of a compiled Huber loss; 1 elsewhere."""
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    return float(config.get("delta", 1.0)) if _loss_name(loss) in _HUBER else 1.0


def checked_activation(head: Head, loss: Any, run: Callable[[], np.ndarray]) -> str:
    """The student's activation at an output, after comparing it with what the loss takes.

    A cross-entropy of Keras says whether it takes logits. Where the last layer does not show what
    the output is (a sum of softmaxes, a Lambda), the values of random inputs decide.

    Args:
        head: The output.
        loss: Its compiled loss, or None.
        run: Gives the output for random inputs, [n, ..., C].

    Raises:
        InputError: The loss takes logits and the output is probabilities, or the other way round.
    """
    name = _loss_name(loss)
    if "crossentropy" not in name or isinstance(loss, str) or not hasattr(loss, "get_config"):
        takes_logits = False if isinstance(loss, str) and "crossentropy" in name else None
    else:
        takes_logits = bool(loss.get_config().get("from_logits", False))
    known = head.activation in ("softmax", "sigmoid")
    if takes_logits is None:
        return head.activation
    if takes_logits:
        if known:
            found = f"from_logits=True, and output '{head.name}' ends in a {head.activation}"
            raise InputError("loss and student disagree about logits", found, "Change one of them")
        return "linear"
    if known:
        return head.activation
    seen = looks_like(run(), "sigmoid" if "binary" in name else "softmax")
    if seen == "linear":
        found = f"from_logits=False, and output '{head.name}' holds no probabilities"
        raise InputError("loss and student disagree about logits", found, "Use from_logits=True")
    return seen


def looks_like(values: np.ndarray, other: str) -> str:
    """What made these outputs, judged by their values: "softmax", "sigmoid" or "linear".

    Args:
        values: [n, ..., C].
        other: Values between 0 and 1 that are no softmax are taken for a sigmoid where this is
            "sigmoid".
    """
    values = values.astype(np.float64)
    inside = bool((values >= 0).all() and (values <= 1).all())
    if inside and values.ndim > 1 and values.shape[-1] > 1:
        if np.allclose(values.sum(axis=-1), 1.0, atol=1e-3):
            return "softmax"
    return "sigmoid" if inside and other == "sigmoid" else "linear"
