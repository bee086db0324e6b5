"""Feature distillation: losses between a student's and a teacher's intermediate outputs.

Each takes [N, ..., C] of both, channels last, computes in float32 and gives one value per sample.
What is not averaged over samples by nature (similarities, relations) is given row by row, so that
its mean over the batch is the paper's value. In a distributed fit the batch is that of one replica.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tfedge._keras import tf
from tfedge.distill import losses, named
from tfedge.errors import InputError

_TINY = 1e-12


@dataclass(frozen=True)
class Feature(ABC):
    """Base of all feature losses.

    Attributes:
        weight: The loss counts this much beside the others.
        layers: Which layers are compared: "auto" (see `pairing`), a list of names that student and
            teacher share, or a mapping of the student's names to the teacher's.
    """

    embedding: ClassVar[bool] = False
    """True: "auto" takes the one last pair; False: one pair for every spatial size."""
    same_size: ClassVar[bool] = True
    """The spatial sizes of a pair must be equal."""
    same_channels: ClassVar[bool] = False
    """The channels of a pair must be equal: by a channel map, or through an adapter."""
    needs_positions: ClassVar[bool] = False
    """Features without positions [N, C] have nothing to compare."""

    weight: float = 1.0
    layers: Any = "auto"

    def __post_init__(self) -> None:
        """Checks the values."""
        named.number(type(self).__name__, "weight", self.weight, 0, inside=True)
        fine = isinstance(self.layers, (str, Mapping, Sequence))
        if not fine or (isinstance(self.layers, str) and self.layers != "auto") or not self.layers:
            fix = 'Give "auto", a list of names, or a mapping of student names to teacher names'
            raise InputError("layers names no layers", f"{self.layers!r}", fix)

    @abstractmethod
    def loss(self, student: Any, teacher: Any) -> Any:
        """The loss of one pair: [N, ..., C] of both -> float32 [N]."""


@dataclass(frozen=True)
class FitNet(Feature):
    """Hints: mean((r(s) - t)^2) / mean(t^2), r a 1x1 convolution where channels do not correspond.

    Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3, divided by the teacher's
    own mean square over the batch, so that `weight` means the same at every layer. The adapter r
    trains with the student and is no part of it.

    Attributes:
        plan: PruningPlan(s) that made the student from the teacher, in order: then the student's
            channels are compared with those of the teacher that survived, without an adapter.
            Without a plan, layers of equal name and number of channels need no adapter either.
    """

    same_channels: ClassVar[bool] = True
    plan: Any = None

    def loss(self, student: Any, teacher: Any) -> Any:
        """See `Feature.loss`; student and teacher have the same shape."""
        scale = tf.reduce_mean(tf.square(tf.cast(teacher, tf.float32)))
        return losses.squared_error(teacher, student) / tf.maximum(scale, _TINY)


@dataclass(frozen=True)
class AttentionTransfer(Feature):
    """Where a network looks: || a(s) - a(t) ||^2, a = vec(sum over c of x_c^2) / its 2-norm.

    Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", section 3.1, with the squared
    norm summed over positions: 0 to 2. Any numbers of channels.
    """

    needs_positions: ClassVar[bool] = True
    weight: float = 5.0

    def loss(self, student: Any, teacher: Any) -> Any:
        """See `Feature.loss`."""
        maps = []
        for x in (student, teacher):
            energy = tf.reduce_sum(tf.square(tf.cast(x, tf.float32)), axis=-1)
            flat = tf.reshape(energy, [tf.shape(energy)[0], -1])
            maps.append(tf.math.l2_normalize(flat, axis=-1, epsilon=_TINY))
        return tf.reduce_sum(tf.square(maps[0] - maps[1]), axis=-1)


@dataclass(frozen=True)
class SimilarityPreserving(Feature):
    """Which samples are alike: || G(s) - G(t) ||_F^2 / N^2, G = x x^T with rows of 2-norm 1.

    x is the feature as a matrix [N, positions * channels]. Tung & Mori 2019, "Similarity-Preserving
    Knowledge Distillation", equations 1 to 4 (their weight: 3000). Any shapes.
    """

    embedding: ClassVar[bool] = True
    same_size: ClassVar[bool] = False
    weight: float = 1000.0

    def loss(self, student: Any, teacher: Any) -> Any:
        """See `Feature.loss`; row i gives || G_i(s) - G_i(t) ||^2 / N."""
        grams = []
        for x in (student, teacher):
            flat = tf.reshape(tf.cast(x, tf.float32), [tf.shape(x)[0], -1])
            gram = tf.matmul(flat, flat, transpose_b=True)
            grams.append(tf.math.l2_normalize(gram, axis=-1, epsilon=_TINY))
        count = tf.cast(tf.shape(grams[0])[0], tf.float32)
        return tf.reduce_sum(tf.square(grams[0] - grams[1]), axis=-1) / count


@dataclass(frozen=True)
class RelationalKD(Feature):
    """How samples lie to each other: Huber of distances (over their mean), and of angles.

    With e the feature averaged over positions [N, C]: distance d_ij = ||e_i - e_j|| / mean d,
    angle a_ijk = cos of the angle at e_j between e_i and e_k; the loss is mean Huber(d(s) - d(t)) +
    angle * mean Huber(a(s) - a(t)). Park et al. 2019, "Relational Knowledge Distillation" (their
    weights: 25 for distances, 50 for angles). Any shapes; needs N^3 numbers for a batch of N.

    Attributes:
        angle: Weight of the angles beside the distances; 0 leaves them out.
    """

    embedding: ClassVar[bool] = True
    same_size: ClassVar[bool] = False
    weight: float = 25.0
    angle: float = 2.0

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        named.number("RelationalKD", "angle", self.angle, 0)

    def loss(self, student: Any, teacher: Any) -> Any:
        """See `Feature.loss`; row i holds what belongs to e_i (angles: with its corner there)."""
        points = [_embedding(student), _embedding(teacher)]
        apart = [_distances(p) for p in points]
        value = tf.reduce_mean(losses.huber(apart[0] - apart[1]), axis=-1)
        if self.angle:
            angles = [_angles(p) for p in points]
            corner = tf.reduce_mean(losses.huber(angles[0] - angles[1]), axis=(1, 2))
            value += self.angle * corner
        return value


def _embedding(x: Any) -> Any:
    x = tf.cast(x, tf.float32)
    axes = list(range(1, x.shape.rank - 1))
    return tf.reduce_mean(x, axis=axes) if axes else x


def _distances(points: Any) -> Any:
    """[N, C] -> [N, N], over the mean of those that are not 0."""
    square = tf.reduce_sum(tf.square(points[:, None] - points[None]), axis=-1)
    # The root has no gradient at 0, which is where i = j.
    apart = tf.where(square > 0, tf.sqrt(tf.maximum(square, _TINY)), 0.0)
    count = tf.reduce_sum(tf.cast(square > 0, tf.float32))
    return apart / tf.maximum(tf.reduce_sum(apart) / tf.maximum(count, 1.0), _TINY)


def _angles(points: Any) -> Any:
    """[N, C] -> [N, N, N]: entry j, i, k is the cosine at j between i and k."""
    toward = points[None] - points[:, None]
    square = tf.reduce_sum(tf.square(toward), axis=-1, keepdims=True)
    # Where two points are one there is no direction: 0, with no gradient to blow up.
    unit = toward * tf.math.rsqrt(tf.where(square > 0, square, 1.0))
    return tf.matmul(unit, unit, transpose_b=True)


@dataclass(frozen=True)
class ChannelKL(Feature):
    """Where each channel looks, for dense prediction: T^2 / C * sum over c of KL(p_c(t) || p_c(s)).

    p_c is the softmax of channel c over all positions at temperature T. Shu et al. 2021,
    "Channel-wise Knowledge Distillation for Dense Prediction" (theirs: T 4, weight 50 for features
    and 3 for the maps of logits). Adapters and `plan` are as in `FitNet`.

    Attributes:
        temperature: T > 0.
        plan: See `FitNet`.
    """

    same_channels: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    temperature: float = 4.0
    plan: Any = None

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        named.number("ChannelKL", "temperature", self.temperature, 0, inside=True)

    def loss(self, student: Any, teacher: Any) -> Any:
        """See `Feature.loss`; student and teacher have the same shape."""
        rows = []
        for x in (teacher, student):
            x = tf.cast(x, tf.float32)
            flat = tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]])
            rows.append(tf.transpose(flat, [0, 2, 1]))
        return losses.softened_kl(rows[0], rows[1], self.temperature)


FEATURES: dict[str, type[Feature]] = {
    "fitnet": FitNet,
    "attention": AttentionTransfer,
    "similarity": SimilarityPreserving,
    "relational": RelationalKD,
    "channel_kl": ChannelKL,
}


def get_features(value: Any) -> tuple[Feature, ...]:
    """Makes feature losses of what a user gave.

    Args:
        value: None, one of the following, or a list of them: a `Feature`; a name in `FEATURES`; a
            mapping with "name" and the parameters of its class.

    Raises:
        InputError: Anything else.
    """
    if value is None:
        return ()
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(_feature(item) for item in items)


def _feature(value: Any) -> Feature:
    if isinstance(value, Feature):
        return value
    if isinstance(value, (str, Mapping)):
        return named.make(value, FEATURES, "feature")
    fix = f"Choose from: {', '.join(FEATURES)}"
    raise InputError("this is no feature loss", f"a {type(value).__name__}", fix)
