"""Soft targets of detectors: boxes and classes count where the teacher sees an object.

L = KL(objectness) + sum_i o_i KL_i(classes) / sum_i o_i + box * sum_i o_i |b_i(t) - b_i(s)|^2 /
sum_i o_i, i over the boxes of a sample, o_i the teacher's objectness, the KLs at temperature T and
times T^2. Without the factor o the many boxes of the background, about which the teacher knows
nothing, would drown the others: Chen et al. 2017, "Learning Efficient Object Detection Models with
Knowledge Distillation" weights classes for this reason, and Mehta & Ozturk 2018, "Object Detection
at 200 Frames Per Second" scales by the teacher's objectness, as here. The bounded regression loss
of Chen et al. needs assigned ground-truth boxes and is not included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfedge._keras import tf
from tfedge.distill import losses, named
from tfedge.distill.targets import Heat, Target
from tfedge.errors import InputError, did_you_mean
from tfedge.heads import Head

_SCORES = ("sigmoid", "softmax")


@dataclass(frozen=True)
class _Parts:
    """A head taken apart: boxes [N, B, b], logits of objectness [N, B, 1] and classes [N, B, C]."""

    boxes: Any
    objectness: Any
    scores: Any


@dataclass(frozen=True, kw_only=True)
class DetectionHead(ABC):
    """What both kinds of heads share.

    Attributes:
        scores: How the classes of a box are told: "sigmoid" (each on its own) or "softmax".
        box: Weight of the boxes' loss.
        background: Number of the background class of softmax scores, for heads without an
            objectness.
    """

    scores: str = "sigmoid"
    box: float = 1.0
    background: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        named.number(type(self).__name__, "box", self.box, 0)
        if self.scores not in _SCORES:
            fix = did_you_mean(str(self.scores), _SCORES)
            raise InputError("unknown scores", f"'{self.scores}'", fix)

    @abstractmethod
    def parts(self, outputs: Sequence[Any], activations: Sequence[str]) -> _Parts:
        """Takes the outputs of one model apart.

        Args:
            outputs: The outputs that make up the head.
            activations: Their last activations.
        """

    def objects(self, parts: _Parts) -> Any:
        """How sure a model is of an object in every box, [N, B, 1], between 0 and 1."""
        if parts.objectness is not None:
            return tf.sigmoid(parts.objectness)
        if self.scores == "sigmoid":
            return tf.reduce_max(tf.sigmoid(parts.scores), axis=-1, keepdims=True)
        p = tf.nn.softmax(parts.scores)
        if self.background is None:
            return tf.reduce_max(p, axis=-1, keepdims=True)
        return 1 - p[..., self.background : self.background + 1]


@dataclass(frozen=True)
class DetectionTarget(Target):
    """A detection head as a soft target; see the module.

    Attributes:
        head: Its layout.
        index: Number of the output whose sample weights count.
        weight: Of this target.
        places: Numbers of the outputs that make up the head.
        activations: (teacher's, student's) of each of them.
    """

    head: DetectionHead
    index: int
    weight: float
    places: tuple[int, ...]
    activations: tuple[tuple[str, str], ...]
    name = "detection"

    def loss(self, teacher: Sequence[Any], student: Sequence[Any], heat: Heat) -> Any:
        """See the module."""
        theirs, mine = self._parts(teacher, 0), self._parts(student, 1)
        share = self.head.objects(theirs)
        share /= tf.maximum(tf.reduce_sum(share, axis=1, keepdims=True), losses.EPSILON)
        kl = losses.kl_map if self.head.scores == "softmax" else losses.binary_kl_map
        t = heat(theirs.scores, mine.scores, self.head.scores)
        classes = tf.reduce_mean(kl(theirs.scores, mine.scores, t), axis=-1, keepdims=True)
        apart = tf.reduce_mean(tf.square(theirs.boxes - mine.boxes), axis=-1, keepdims=True)
        total = tf.reduce_sum(share * (classes + self.head.box * apart), axis=(1, 2))
        if theirs.objectness is not None:
            t = heat(theirs.objectness, mine.objectness, "sigmoid")
            total += losses.softened_binary_kl(theirs.objectness, mine.objectness, t)
        return total

    def _parts(self, outputs: Sequence[Any], side: int) -> _Parts:
        return self.head.parts(
            [outputs[i] for i in self.places], [a[side] for a in self.activations]
        )


@dataclass(frozen=True)
class YoloHead(DetectionHead):
    """A raw head in one tensor, like YOLO's: boxes, objectness and classes of every anchor.

    [N, H, W, anchors * D], [N, H, W, anchors, D] or [N, boxes, D] with D = coordinates +
    (1 with an objectness) + classes, in this order. Boxes are compared as they stand in the output
    (encoded offsets), objectness and classes as logits. A head with several outputs (one a scale)
    takes one `YoloHead` for all of them.

    Attributes:
        classes: Number of classes.
        anchors: Anchors per position.
        coordinates: Numbers of a box.
        objectness: The head has an objectness; without it, the teacher's largest class
            probability takes its place.
    """

    classes: int = 1
    anchors: int = 1
    coordinates: int = 4
    objectness: bool = True

    def __post_init__(self) -> None:
        """Checks the layout."""
        super().__post_init__()
        for name in ("classes", "anchors", "coordinates"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} of YoloHead must be a whole number from 1", f"{value}")

    @property
    def depth(self) -> int:
        """Numbers of one box."""
        return self.coordinates + int(self.objectness) + self.classes

    def target(
        self, index: int, weight: float, activations: tuple[str, str], head: Head
    ) -> DetectionTarget:
        """The soft target of one output.

        Args:
            index: Number of the output.
            weight: Of the output.
            activations: Of teacher and student.
            head: The student's output.

        Raises:
            InputError: The layout does not fit the output.
        """
        if head.shape[-1] not in (self.depth, self.depth * self.anchors):
            found = f"{head.shape} in output '{head.name}'"
            needs = f"It needs {self.anchors} times {self.depth} in the last axis"
            raise InputError("the layout does not fit the detection head", found, needs)
        return DetectionTarget(self, index, weight, (index,), (activations,))

    def parts(self, outputs: Sequence[Any], activations: Sequence[str]) -> _Parts:
        """See `DetectionHead.parts`."""
        raw = tf.cast(outputs[0], tf.float32)
        flat = tf.reshape(raw, [tf.shape(raw)[0], -1, self.depth])
        boxes, rest = flat[..., : self.coordinates], flat[..., self.coordinates :]
        logits = losses.to_logits(rest, activations[0])
        if not self.objectness:
            return _Parts(boxes, None, logits)
        return _Parts(boxes, logits[..., :1], logits[..., 1:])


@dataclass(frozen=True)
class DetectionOutputs(DetectionHead):
    """Separate outputs for boxes, classes and (perhaps) objectness, like RetinaNet's and SSD's.

    Boxes [N, ..., 4] (or any number of coordinates), classes [N, ..., C], objectness [N, ..., 1];
    an output may also hold several boxes in its last axis (anchors * 4, anchors * C, anchors): then
    give `per_box`.

    Attributes:
        boxes: Name of the output with the boxes.
        classes: Name of the output with the classes.
        objectness: Name of the output with the objectness; None: the teacher's largest class
            probability (with `background`: one minus that of the background) takes its place.
        coordinates: Numbers of a box.
        per_box: Classes of one box; None: the last axis of the classes' output.
    """

    boxes: str = "boxes"
    classes: str = "classes"
    objectness: str | None = None
    coordinates: int = 4
    per_box: int | None = None

    def names(self) -> list[str]:
        """Names of the outputs that it covers."""
        return [n for n in (self.boxes, self.classes, self.objectness) if n is not None]

    def target(
        self, outputs: Sequence[Head], teacher: Sequence[Head], weights: Sequence[float]
    ) -> DetectionTarget:
        """The soft target for a student's outputs.

        Args:
            outputs: The student's outputs.
            teacher: The teacher's, in the same order.
            weights: Loss weights of the outputs; that of the classes counts.

        Raises:
            InputError: An output that does not exist, or does not hold whole boxes.
        """
        known = [h.name for h in outputs]
        for name in self.names():
            if name not in known:
                raise InputError(
                    "the student has no output of this name", f"'{name}'", did_you_mean(name, known)
                )
        places = tuple(known.index(n) for n in self.names())
        found = [outputs[i] for i in places]
        width = self.per_box or found[1].shape[-1]
        for head, step in zip(found, (self.coordinates, width, 1), strict=False):
            if not step or (head.shape[-1] or 0) % step:
                what = f"output '{head.name}' does not hold whole boxes"
                raise InputError(what, f"{head.shape}, {step} numbers a box")
        acts = tuple((teacher[i].activation, outputs[i].activation) for i in places)
        made = replace(self, per_box=width)
        return DetectionTarget(made, places[1], weights[places[1]], places, acts)

    def parts(self, outputs: Sequence[Any], activations: Sequence[str]) -> _Parts:
        """See `DetectionHead.parts`."""

        def rows(part: int, width: int | None) -> Any:
            x = tf.cast(outputs[part], tf.float32)
            x = losses.to_logits(x, activations[part]) if part else x
            return tf.reshape(x, [tf.shape(x)[0], -1, width])

        objectness = rows(2, 1) if self.objectness is not None else None
        return _Parts(rows(0, self.coordinates), objectness, rows(1, self.per_box))
