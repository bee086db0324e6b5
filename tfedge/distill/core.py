"""What a distillation step computes, for students of either Keras: TensorFlow functions only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import flavour, tf
from tfedge.distill import pairing, targets
from tfedge.distill.detection import DetectionOutputs, YoloHead
from tfedge.distill.features import Feature
from tfedge.distill.teacher import Teacher, random_inputs
from tfedge.distill.temperature import ConstantTemperature, Moment, Temperature
from tfedge.errors import InputError
from tfedge.heads import heads
from tfedge.sources import model_inputs


@dataclass(frozen=True)
class Taught:
    """What the teachers say about a batch: outputs by teacher, feature maps by layer name."""

    outputs: list[list[Any]]
    maps: dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """The losses of a batch, float32 scalars; None where there is no such loss.

    Attributes:
        soft: Soft targets, over all outputs.
        feature: Feature losses, weighted.
        temperature: Mean temperature.
    """

    soft: Any
    feature: Any = None
    temperature: Any = None


class Core:
    """Teachers, soft targets, temperature and features of one distillation.

    Keras never sees this object: the distillers hold it where nothing is tracked.

    Args:
        student: The model that learns.
        teachers: At least one.
        temperature: See `temperature`.
        features: Feature losses.
        kind: The option `kind`.
        combine: The option `combine`.

    Attributes:
        heads: The student's outputs.
        extras: Keras layers that train with the student: adapters, a learnt temperature.
        kinds: Kind of each output, after `prepare`.
    """

    def __init__(
        self,
        student: Any,
        teachers: Sequence[Teacher],
        temperature: Temperature,
        features: tuple[Feature, ...],
        kind: Any,
        combine: str,
    ) -> None:
        self.student, self.teachers = student, list(teachers)
        self.heads = heads(student)
        self.temperature, self.combine = temperature, combine
        self.constant = isinstance(temperature, ConstantTemperature)
        self._covering = kind if isinstance(kind, DetectionOutputs) else None
        wanted = "auto" if self._covering is not None else kind
        self._kinds = targets.kinds_by_name(wanted, self.heads)
        kept = flavour(student) or "tf_keras"
        self._state = temperature.build(kept)
        self.bound = [pairing.bind(f, student, self._seen_teacher()) for f in features]
        self._watches = pairing.watch(self.bound)
        self.extras = [a for b in self.bound for a in b.adapters]
        self.extras += [] if self._state is None else [self._state]
        self.kinds: tuple[str, ...] = ()
        self._targets: list[list[targets.Target]] = []
        self.clock = Clock() if temperature.needs_progress else None

    def _seen_teacher(self) -> Any:
        """The one teacher whose layers the feature losses look at."""
        if len(self.teachers) == 1 and self.teachers[0].model is not None:
            return self.teachers[0].model
        found = f"{len(self.teachers)} teachers" if len(self.teachers) > 1 else "outputs alone"
        raise InputError(
            "feature losses need one teacher whose layers can be seen", found,
            "Give a functional or sequential Keras model",
        )  # fmt: skip

    @property
    def in_graph(self) -> bool:
        """TensorFlow ops only."""
        return all(t.in_graph for t in self.teachers)

    def prepare(self, loss: Any, loss_weights: Any) -> None:
        """Settles the soft target of every output.

        Args:
            loss: As compiled, or None.
            loss_weights: As compiled, or None.

        Raises:
            InputError: Loss and student disagree about logits; a layout that does not fit; a
                temperature that no output uses; outputs that do not say how sure a teacher is.
        """
        given = targets.losses_by_output(loss, self.heads)
        weights = targets.weights_by_output(loss_weights, self.heads)
        covered = [] if self._covering is None else self._covering.names()
        kinds: list[Any] = []
        for head, part in zip(self.heads, given, strict=True):
            kind = self._kinds[head.name]
            if head.name in covered:
                kind = "detection"
            kinds.append(targets.kind_of(head, part) if kind == "auto" else kind)
        acts = [self._activation(i, kinds[i], given[i]) for i in range(len(kinds))]
        self._targets = [self._of_teacher(t, kinds, acts, given, weights) for t in self.teachers]
        self.kinds = tuple("detection" if isinstance(k, YoloHead) else k for k in kinds)
        self.check_confidence(labelled=True)
        if not self.constant and not any(t.heated for t in self._targets[0]):
            raise InputError(
                "a changing temperature has nothing to do", f"outputs of kind {self.kinds}",
                "Regression knows no temperature: leave it out",
            )  # fmt: skip

    def check_confidence(self, labelled: bool) -> None:
        """Makes sure that several teachers can be weighted, where that is wanted.

        Args:
            labelled: There are labels.

        Raises:
            InputError: They cannot.
        """
        if self.combine == "average":
            return
        for target in self._targets[0]:
            if not target.has_cost(labelled):
                raise InputError(
                    "these outputs have no confidence to weight teachers by",
                    f"{target.name}{'' if labelled else ' without labels'}",
                    "Use combine='average'",
                )

    def _activation(self, index: int, kind: Any, loss: Any) -> str:
        """The student's activation at an output, seen or declared."""
        head = self.heads[index]
        if not isinstance(kind, str) or kind not in ("softmax", "sigmoid"):
            return head.activation

        def run() -> np.ndarray:
            x = random_inputs(model_inputs(self.student))
            return np.asarray(self.arranged(self.student(x, training=False))[index])

        found = targets.checked_activation(head, loss, run)
        return targets.looks_like(run(), kind) if found == "unknown" else found

    def _of_teacher(
        self, teacher: Teacher, kinds: list[Any], acts: list[str], given: list[Any], weights: Any
    ) -> list[targets.Target]:
        """The soft targets of one teacher."""
        made: list[targets.Target] = []
        for i, kind in enumerate(kinds):
            pair = (teacher.heads[i].activation, acts[i])
            if kind == "detection":
                continue
            if isinstance(kind, YoloHead):
                made.append(kind.target(i, weights[i], pair, self.heads[i]))
            else:
                delta = targets.delta_of(given[i])
                made.append(targets.OutputTarget(kind, i, weights[i], pair, delta))
        if self._covering is not None:
            made.append(self._covering.target(self.heads, teacher.heads, weights))
        return made

    def teach(self, x: Any) -> Taught:
        """Asks the teachers, in inference mode and without gradients."""
        if not self.bound:
            return Taught([t(x) for t in self.teachers], {})
        with self._watches[1].seeing() as maps:
            outputs = [t(x) for t in self.teachers]
        return Taught(outputs, maps)

    def learn(self, x: Any) -> tuple[Any, dict[str, Any]]:
        """Runs the student in training mode: its outputs, and feature maps by layer name."""
        if not self.bound:
            return self.student(x, training=True), {}
        with self._watches[0].seeing() as maps:
            outputs = self.student(x, training=True)
        return outputs, maps

    def arranged(self, outputs: Any) -> list[Any]:
        """The student's outputs as a list in the order of `heads`."""
        if isinstance(outputs, Mapping):
            return [outputs[h.name] for h in self.heads]
        return tf.nest.flatten(outputs)

    def losses(
        self, taught: Taught, learned: tuple[Any, dict], y: Any, weight: Any, done: Any = 0.0
    ) -> Parts:
        """The losses of a batch.

        Args:
            taught: What `teach` returned.
            learned: What `learn` returned: outputs and feature maps.
            y: Labels, or None.
            weight: Sample weights, or None.
            done: Part of the training that is done.
        """
        outputs = self.arranged(learned[0])
        temperatures: list[Any] = []

        def heat(teacher: Any, student: Any, kind: str) -> Any:
            # Only a learnt temperature hears the gradient, and none of it reaches the student.
            now = Moment(teacher, tf.stop_gradient(student), kind, done, self._state)
            t = self.temperature(now)
            temperatures.append(tf.reduce_mean(tf.cast(t, tf.float32)))
            return t

        soft = tf.constant(0.0)
        for each in zip(*self._targets, strict=True):
            pairs = zip(each, taught.outputs, strict=True)
            values = [target.loss(parts, outputs, heat) for target, parts in pairs]
            shares = self._shares(each, taught.outputs, y)
            value = tf.add_n([s * v for s, v in zip(shares, values, strict=True)])
            sample = self._of_output(weight, each[0].index)
            soft += each[0].weight * _weighted(value, sample)
        mean = tf.add_n(temperatures) / len(temperatures) if temperatures else None
        feature = self._feature_loss(learned[1], taught.maps, weight) if learned[1] else None
        return Parts(soft, feature, mean)

    def _feature_loss(self, mine: dict[str, Any], theirs: dict[str, Any], weight: Any) -> Any:
        """The weighted feature losses; the sample weights of a single output count here too."""
        sample = self._of_output(weight, 0) if len(self.heads) == 1 else None
        parts = [b.feature.weight * _weighted(b.loss(mine, theirs), sample) for b in self.bound]
        return tf.add_n(parts)

    def _shares(
        self, each: tuple[targets.Target, ...], outputs: list[list[Any]], y: Any
    ) -> list[Any]:
        """How much each teacher counts, by sample; they sum to 1."""
        count = len(each)
        if count == 1 or self.combine == "average":
            return [1.0 / count] * count
        labels = None if y is None else self._of_output(y, each[0].index)
        costs = [t.cost(parts, labels) for t, parts in zip(each, outputs, strict=True)]
        # CA-MKD, equation 3: (1 - softmax of the costs) / (K - 1).
        shares = (1 - tf.nn.softmax(tf.stack(costs, axis=-1))) / (count - 1)
        return tf.unstack(tf.stop_gradient(shares), axis=-1)

    def _of_output(self, value: Any, index: int) -> Any:
        """The labels or sample weights of one output."""
        if isinstance(value, Mapping):
            return value.get(self.heads[index].name)
        if isinstance(value, (list, tuple)):
            return value[index] if len(value) == len(self.heads) else None
        return value


def _weighted(values: Any, weight: Any) -> Any:
    """Mean of values [N], times sample weights [N] where there are any."""
    if weight is not None:
        values *= tf.cast(tf.reshape(weight, [-1]), tf.float32)
    return tf.reduce_mean(values)


class Clock:
    """Knows how much of the training is done, inside the step as well."""

    def __init__(self) -> None:
        self._began = tf.Variable(0.0, trainable=False, name="began")
        self._total = tf.Variable(0.0, trainable=False, name="total")

    def start(self, total: int | None) -> None:
        """Takes the number of steps of a fit.

        Raises:
            InputError: It is not known.
        """
        if not total:
            raise InputError(
                "the temperature needs to know how many steps an epoch has",
                "a data set of unknown length",
                "Pass steps_per_epoch to fit, or use a temperature without a schedule",
            )
        self._total.assign(float(total))

    def epoch(self, step: int, iterations: Any) -> None:
        """Says which step of the fit an epoch begins at, and the optimizer's count then."""
        self._began.assign(float(iterations.numpy()) - step)

    def done(self, iterations: Any) -> Any:
        """Part of the training that is done, from the optimizer's count; float32 in [0, 1].

        Outside of `fit` (train_on_batch) the training never gets on.
        """
        step = tf.cast(iterations, tf.float32) - self._began
        return tf.clip_by_value(step / tf.maximum(self._total, 1.0), 0.0, 1.0)
