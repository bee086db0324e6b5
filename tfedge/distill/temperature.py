"""Temperatures that change: by training step, by sample, or learnt against the student.

A temperature is called with a `Moment` and returns T > 0: a scalar, or a tensor [N, ..., 1]
(softmax outputs) or [N, ..., C] (sigmoid outputs). Gradients of T reach no one but the parameters
of a learnt temperature.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from tfedge._keras import library, tf
from tfedge.distill import losses, named
from tfedge.errors import InputError


@dataclass(frozen=True)
class Moment:
    """What a temperature may look at.

    Attributes:
        teacher: Logits [N, ..., C], float32.
        student: Logits [N, ..., C], float32.
        kind: "softmax" or "sigmoid": what the logits are of.
        progress: Part of the training that is done, float32 scalar in [0, 1].
        state: What `Temperature.build` returned.
    """

    teacher: Any
    student: Any
    kind: str
    progress: Any = 0.0
    state: Any = None


class Temperature(ABC):
    """Base of all temperatures; they are frozen dataclasses."""

    needs_progress: ClassVar[bool] = False
    """True where `Moment.progress` is looked at: `fit` must then know its number of steps."""

    @abstractmethod
    def __call__(self, moment: Moment) -> Any:
        """T at this moment."""

    def build(self, flavour: str) -> Any:
        """A Keras layer that holds what is learnt, or None.

        Args:
            flavour: "tf_keras" or "keras3": the Keras of the layer.
        """
        return None


@dataclass(frozen=True)
class ConstantTemperature(Temperature):
    """T = value."""

    value: float = 2.0

    def __post_init__(self) -> None:
        """Checks the value."""
        number = isinstance(self.value, Real) and not isinstance(self.value, bool)
        if not (number and self.value > 0 and math.isfinite(self.value)):
            fix = "Usual: 1 to 10"
            raise InputError("temperature must be a positive number", str(self.value), fix)

    def __call__(self, moment: Moment) -> Any:
        """The value."""
        return tf.constant(float(self.value))


@dataclass(frozen=True)
class LinearTemperature(Temperature):
    """T falls (or rises) in a straight line: start + (end - start) * p, p the part that is done.

    Attributes:
        start: T at the first step.
        end: T at the last step.
    """

    needs_progress: ClassVar[bool] = True
    start: float = 4.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Checks both ends."""
        for name in ("start", "end"):
            named.number(type(self).__name__, name, getattr(self, name), 0, inside=True)

    def __call__(self, moment: Moment) -> Any:
        """T at this step."""
        return self.start + (self.end - self.start) * moment.progress


@dataclass(frozen=True)
class CosineTemperature(LinearTemperature):
    """T goes along half a cosine: end + (start - end) * (1 + cos(pi * p)) / 2.

    The shape of the learning rate's schedule of Loshchilov & Hutter 2017; see `LinearTemperature`
    for the attributes.
    """

    def __call__(self, moment: Moment) -> Any:
        """T at this step."""
        return self.end + (self.start - self.end) * 0.5 * (1 + tf.cos(math.pi * moment.progress))


@dataclass(frozen=True)
class StepTemperature(Temperature):
    """T is constant in parts of the training.

    Attributes:
        values: T of each part.
        times: Where each part but the first begins, as ascending fractions of the training.
    """

    needs_progress: ClassVar[bool] = True
    values: tuple[float, ...] = (4.0, 2.0, 1.0)
    times: tuple[float, ...] = (1 / 3, 2 / 3)

    def __post_init__(self) -> None:
        """Checks values and times."""
        for value in self.values:
            named.number("StepTemperature", "values", value, 0, inside=True)
        times = list(self.times)
        if not all(0 < t < 1 for t in times) or times != sorted(set(times)):
            found = str(times)
            raise InputError("times of StepTemperature must ascend between 0 and 1", found)
        if len(self.values) != len(times) + 1:
            found = f"{len(self.values)} values, {len(times)} times"
            raise InputError("StepTemperature needs one more value than times", found)

    def __call__(self, moment: Moment) -> Any:
        """T at this step."""
        passed = tf.reduce_sum(tf.cast(moment.progress >= tf.constant(self.times), tf.int32))
        return tf.gather(tf.constant(self.values, tf.float32), passed)


@dataclass(frozen=True)
class EntropyTemperature(Temperature):
    """A T for every sample, by how sure the teacher is: high - (high - low) * H(p) / H_max.

    H(p) is the entropy of the teacher's output at temperature 1. Where the teacher is sure, its
    other classes show only at a high T; where it is undecided, its output is soft already. A
    sample-wise temperature by confidence is one of those of Wen, Lai & Qian 2021, "Preparing
    Lessons: Improve Knowledge Distillation with Better Supervision"; this form, bounded by
    construction, is our own.

    Attributes:
        low: T of an output that is undecided between all classes.
        high: T of an output that is sure.
    """

    low: float = 1.0
    high: float = 4.0

    def __post_init__(self) -> None:
        """Checks the bounds."""
        named.number("EntropyTemperature", "low", self.low, 0, inside=True)
        named.number("EntropyTemperature", "high", self.high, self.low)

    def __call__(self, moment: Moment) -> Any:
        """T of every sample."""
        undecided = losses.entropy(moment.teacher, moment.kind)
        return tf.stop_gradient(self.high - (self.high - self.low) * undecided)


@dataclass(frozen=True)
class GapTemperature(Temperature):
    """A T for every sample, by the gap to the teacher: base + strength * (mean(w) - w), >= low.

    w = 1 - cos(teacher, student) lies between 0 and 2, the cosine taken of the centred logits at
    each position; for sigmoid outputs w = |p - q|. The mean is over the batch (of one replica).
    Samples far from the teacher get a lower T, that is its sharper answer. After the
    dynamic temperature of Wen, Lai & Qian 2021, "Preparing Lessons: Improve Knowledge Distillation
    with Better Supervision", section 3.

    Attributes:
        base: T of a sample with an average gap.
        strength: How much T moves with the gap.
        low: T never falls below.
    """

    base: float = 3.0
    strength: float = 2.0
    low: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values."""
        named.number("GapTemperature", "low", self.low, 0, inside=True)
        named.number("GapTemperature", "base", self.base, self.low)
        named.number("GapTemperature", "strength", self.strength, 0)

    def __call__(self, moment: Moment) -> Any:
        """T of every sample."""
        if moment.kind == "softmax":
            centred = [z - tf.reduce_mean(z, -1, True) for z in (moment.teacher, moment.student)]
            unit = [tf.math.l2_normalize(z, axis=-1) for z in centred]
            gap = 1 - tf.reduce_sum(unit[0] * unit[1], axis=-1, keepdims=True)
        else:
            gap = tf.abs(tf.sigmoid(moment.teacher) - tf.sigmoid(moment.student))
        wanted = self.base + self.strength * (tf.reduce_mean(gap) - gap)
        return tf.stop_gradient(tf.maximum(wanted, self.low))


@dataclass(frozen=True)
class CurriculumTemperature(Temperature):
    """CTKD's global temperature: one number that is learnt to make the student's task harder.

    T = low + (high - low) * sigmoid(theta); theta follows the gradient of the soft loss upwards,
    through a gradient reversal whose strength rises from 0 to 1 along half a cosine, so that the
    task goes from easy to hard. Li et al. 2023, "Curriculum Temperature for Knowledge
    Distillation" (AAAI). The student's optimizer moves theta as well; with a small learning rate
    and few steps T hardly moves, so watch the metric "temperature".

    Attributes:
        start: T at the first step.
        low: T never falls below.
        high: T never rises above.
        warmup: Part of the training over which the reversal reaches its full strength.
    """

    needs_progress: ClassVar[bool] = True
    start: float = 4.0
    low: float = 1.0
    high: float = 21.0
    warmup: float = 0.5

    def __post_init__(self) -> None:
        """Checks the values."""
        named.number("CurriculumTemperature", "low", self.low, 0, inside=True)
        named.number("CurriculumTemperature", "start", self.start, self.low, inside=True)
        named.number("CurriculumTemperature", "high", self.high, self.start, inside=True)
        named.number("CurriculumTemperature", "warmup", self.warmup, 0)

    def build(self, flavour: str) -> Any:
        """A layer that holds theta."""
        lib = library(flavour)
        share = (self.start - self.low) / (self.high - self.low)
        theta = lib.initializers.Constant(math.log(share / (1 - share)))
        layer = lib.layers.Layer(name="curriculum_temperature", dtype="float32")
        layer.theta = layer.add_weight(name="theta", shape=(), initializer=theta, trainable=True)
        layer.built = True
        return layer

    def __call__(self, moment: Moment) -> Any:
        """T at this step; its gradient is reversed."""
        done = tf.minimum(moment.progress / max(self.warmup, 1e-6), 1.0)
        strength = 0.5 * (1 - tf.cos(math.pi * done))
        theta = _reversed(tf.convert_to_tensor(moment.state.theta), strength)
        return self.low + (self.high - self.low) * tf.sigmoid(theta)


@tf.custom_gradient
def _reversed(value: Any, strength: Any) -> Any:
    """The value, whose gradient is turned round (Ganin & Lempitsky 2015)."""

    def gradient(upstream: Any) -> tuple[Any, None]:
        return -strength * upstream, None

    return tf.identity(value), gradient


TEMPERATURES: dict[str, type[Temperature]] = {
    "constant": ConstantTemperature,
    "linear": LinearTemperature,
    "cosine": CosineTemperature,
    "step": StepTemperature,
    "entropy": EntropyTemperature,
    "gap": GapTemperature,
    "curriculum": CurriculumTemperature,
}


def get_temperature(value: Any) -> Temperature:
    """Makes a temperature of what a user gave.

    Args:
        value: A number > 0; a `Temperature`; a name in `TEMPERATURES`; or a mapping with "name"
            and the parameters of its class.

    Raises:
        InputError: Anything else.
    """
    if isinstance(value, Temperature):
        return value
    if isinstance(value, str):
        return named.make(value, TEMPERATURES, "temperature")
    if isinstance(value, Mapping):
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return named.make(lists, TEMPERATURES, "temperature")
    return ConstantTemperature(value)
