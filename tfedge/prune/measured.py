"""Importances that look at data: what a channel does, not only how large its weights are.

Each is an object: `measure(model, analysis)` runs the model on the data and returns what the
scores are made of; called as `(group, measured)` it is an importance like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tfedge._keras import flavour, library, tf
from tfedge.errors import InputError, ModelError
from tfedge.graph import Analysis, ChannelGroup, Slice
from tfedge.graph.execute import execute
from tfedge.graph.trace import functional_of, output_names
from tfedge.prune.importance import averaged

_STATISTICS = frozenset({"moving_mean", "moving_variance", "range"})


def batches_of(data: Any, batch_size: int, limit: int) -> Iterator[tuple]:
    """Batches (x,) or (x, y, ...) of arrays or of an iterable of batches.

    Args:
        data: A tf.data.Dataset or other iterable of batches, a pair (x, y) of arrays (or dicts or
            lists of arrays), or inputs alone: an array or a dict of arrays.
        batch_size: Samples a batch, where arrays are given.
        limit: Batches at most.

    Raises:
        InputError: No batch at all.
    """
    if isinstance(data, (np.ndarray, Mapping)) or tf.is_tensor(data):
        data = (data,)
    if isinstance(data, tuple):
        data = tf.data.Dataset.from_tensor_slices(data).batch(batch_size)
    count = 0
    for batch in islice(iter(data), limit):
        count += 1
        yield tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    if not count:
        raise InputError("the data for the importance has no batch", type(data).__name__)


@dataclass(frozen=True)
class Taylor:
    """First-order change of the loss when a channel goes (Molchanov et al. 2017, 2019).

    score_c = mean over batches of |sum of w * dL/dw over the weights that read channel c|. For
    linear layers that read it, the sum is exactly a_c * dL/da_c, the first term of the Taylor
    series of L(a_c = 0) - L. Where no weights read it (an output of attention scores, a global
    pool) the weights that produce it count. Batch norm is in inference mode.

    Attributes:
        data: (x, y) arrays, or a tf.data.Dataset or iterable of batches (x, y).
        loss: A Keras loss or its name, or any function (y, outputs) -> tensor; a list or dict of
            them for several outputs. None takes the loss that the model is compiled with.
        batches: How many batches are used at most.
        batch_size: Samples a batch, where arrays are given. Within a batch the terms of the samples
            may cancel, so small batches give sharper scores.
    """

    data: Any
    loss: Any = None
    batches: int = 16
    batch_size: int = 16

    def measure(self, model: Any, analysis: Analysis) -> dict[str, np.ndarray]:
        """Scores [channels] by group name.

        Raises:
            InputError: The data holds no labels or does not fit the model.
            ModelError: The gradient is not finite.
        """
        loss = _loss_function(model, self.loss)
        chosen = [(g, _readers(g)) for g in analysis.groups if not g.blocked]
        layers = analysis.graph.layers()
        keys = sorted({(s.layer, s.weight) for _, slices in chosen for s in slices})
        variables = [_tensor_of(layers[n].weights[i]) for n, i in keys]
        total = {g.name: np.zeros(g.channels) for g, _ in chosen}
        count = 0
        for batch in batches_of(self.data, self.batch_size, self.batches):
            if len(batch) < 2:
                raise InputError("Taylor importance needs labels", "batches without y")
            terms = _terms(model, loss, batch[:2], variables)
            by_key = dict(zip(keys, terms, strict=True))
            for group, slices in chosen:
                total[group.name] += np.abs(_joint(group, slices, by_key))
            count += 1
        for name, score in total.items():
            if not np.isfinite(score).all():
                raise ModelError(f"the gradient of group '{name}' is not finite", "NaN or infinity")
        return {name: score / count for name, score in total.items()}

    def __call__(self, group: ChannelGroup, measured: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score of each channel."""
        return measured[group.name]


def _readers(group: ChannelGroup) -> list[Slice]:
    kept = [s for s in group.slices if s.weight_name.rsplit(".", 1)[-1] not in _STATISTICS]
    return [s for s in kept if s.role == "in"] or kept


def _tensor_of(variable: Any) -> Any:
    """The TensorFlow variable behind a weight of either Keras."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def _terms(model: Any, loss: Callable, batch: tuple, variables: list[Any]) -> list[np.ndarray]:
    """Weight times gradient, w * dL/dw, of every variable, as float64 arrays."""
    x, y = batch
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for variable in variables:
            tape.watch(variable)
        value = loss(x, y, model(x, training=False))
    gradients = tape.gradient(value, variables, unconnected_gradients="zero")
    return [
        np.asarray(tf.convert_to_tensor(g), np.float64) * np.asarray(v, np.float64)
        for g, v in zip(gradients, variables, strict=True)
    ]


def _joint(group: ChannelGroup, slices: list[Slice], terms: Mapping) -> np.ndarray:
    """Signed sum of the terms over all slices of a channel, [channels]."""
    total = np.zeros(group.channels)
    for s in slices:
        term = terms[s.layer, s.weight]
        line = term.sum(axis=tuple(a for a in range(term.ndim) if a != s.axis))[s.index]
        total += np.bincount(s.channel, weights=line, minlength=group.channels)
    return total


def _loss_function(model: Any, loss: Any) -> Callable[[Any, Any, Any], Any]:
    """(x, y, outputs) -> scalar.

    Raises:
        InputError: No loss was given and the model is not compiled; an unknown loss.
    """
    if loss is None:
        if getattr(model, "optimizer", None) is None:
            raise InputError(
                "Taylor importance needs a loss", f"model '{model.name}' is not compiled",
                "Compile the model, or pass Taylor(data, loss=...)",
            )  # fmt: skip
        return lambda x, y, outputs: model.compute_loss(x=x, y=y, y_pred=outputs)
    losses = library(flavour(model) or "tf_keras").losses

    def total(x: Any, y: Any, outputs: Any) -> Any:
        parts = [
            tf.reduce_mean((f if callable(f) else losses.get(f))(label, output))
            for f, label, output in _by_output(model, loss, y, outputs)
        ]
        return tf.add_n(parts)

    return total


def _by_output(model: Any, loss: Any, y: Any, outputs: Any) -> list[tuple[Any, Any, Any]]:
    """(loss, labels, output) of each output of the model."""
    if not isinstance(outputs, (Mapping, list, tuple)):
        return [(loss, y, outputs)]
    if isinstance(outputs, Mapping):
        keys = list(outputs)
        numbers: list[Any] = keys
    else:
        numbers = list(range(len(outputs)))
        keys = output_names(functional_of(model))
    return [
        (_part(loss, i, k), _part(y, i, k), outputs[i]) for i, k in zip(numbers, keys, strict=True)
    ]


def _part(value: Any, number: Any, name: Any) -> Any:
    """The entry of a list or dict by output; a single loss serves all."""
    if isinstance(value, Mapping):
        return value[name]
    return value[number] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Activation:
    """How strong a channel answers, where it is read; needs no labels.

    "magnitude": mean |a_c| over samples and positions (Molchanov et al. 2017). "nonzero": share of
    a_c != 0, one minus the APoZ of Hu et al. 2016, "Network Trimming"; it says something only
    behind a ReLU. "variance": variance of a_c: a channel that never changes is a bias.

    The activations are those that enter the layers that read the channel; each tensor's scores
    are divided by their mean and the tensors are averaged.

    Attributes:
        data: Inputs: an array, a dict of arrays, (x, y), or an iterable of batches.
        statistic: "magnitude", "nonzero" or "variance".
        batches: How many batches are used at most.
        batch_size: Samples a batch, where arrays are given.

    Raises:
        InputError: An unknown statistic.
    """

    data: Any
    statistic: str = "magnitude"
    batches: int = 16
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.statistic not in _MOMENTS:
            raise InputError(
                "unknown statistic of activations", f"'{self.statistic}'",
                f"Choose one of: {', '.join(_MOMENTS)}",
            )  # fmt: skip

    def measure(self, model: Any, analysis: Analysis) -> dict[str, np.ndarray]:
        """Scores [channels] by group name."""
        moment = _MOMENTS[self.statistic]
        seen = _read_tensors(analysis)
        sums: dict[tuple[int, int], np.ndarray] = {}
        count = 0
        for batch in batches_of(self.data, self.batch_size, self.batches):
            for call, _, outputs in execute(analysis.graph, batch[0]):
                for number, value in zip(call.outputs, outputs, strict=True):
                    for i, plane in enumerate(seen.get(number, ())):
                        found = _gathered(moment, tf.cast(value, tf.float32), plane)
                        sums[number, i] = sums.get((number, i), 0) + found
            count += 1
        scores: dict[int, list[np.ndarray]] = {}
        for (number, i), total in sums.items():
            values = _MEANS[self.statistic](total / count)
            for group, channel, value in _by_group(analysis, seen[number][i], values):
                row = np.bincount(channel, value, analysis.groups[group].channels)
                scores.setdefault(group, []).append(row)
        return {
            g.name: averaged(scores.get(n, []), g.channels) for n, g in enumerate(analysis.groups)
        }

    def __call__(self, group: ChannelGroup, measured: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score of each channel."""
        return measured[group.name]


# Statistic -> moments of a tensor whose means over samples are kept, stacked on the first axis.
_MOMENTS: dict[str, Callable[[Any], Any]] = {
    "magnitude": lambda a: tf.abs(a)[None],
    "nonzero": lambda a: tf.cast(a != 0, tf.float32)[None],
    "variance": lambda a: tf.stack([a, tf.square(a)]),
}
_MEANS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "magnitude": lambda m: m[0],
    "nonzero": lambda m: m[0],
    "variance": lambda m: np.maximum(m[1] - np.square(m[0]), 0),
}


def _read_tensors(analysis: Analysis) -> dict[int, tuple[np.ndarray, ...]]:
    """Label planes of the tensors that weights read, by number; else of all labelled ones."""
    readers = {s.layer for g in analysis.groups for s in g.slices if s.role == "in"}
    inputs = set(analysis.graph.inputs)
    labelled = {n: m.planes for n, m in analysis.marks.items() if m.axes and n not in inputs}
    chosen: dict[int, tuple[np.ndarray, ...]] = {}
    found: set[int] = set()
    for call in analysis.graph.calls:
        for number in call.inputs if call.name in readers else ():
            if number in labelled:
                chosen[number] = labelled[number]
                found |= _groups(analysis, labelled[number])
    for number, planes in labelled.items():
        if _groups(analysis, planes) - found:
            chosen[number] = planes
    return chosen


def _groups(analysis: Analysis, planes: tuple[np.ndarray, ...]) -> set[int]:
    labels = np.unique(np.concatenate([p.ravel() for p in planes]))
    return set(analysis.group_of[labels[labels >= 0]].tolist())


def _gathered(moment: Callable, value: Any, plane: np.ndarray) -> np.ndarray:
    """Means of the moments over all axes along which the labels do not change."""
    axes = [a + 1 for a in range(plane.ndim) if plane.shape[a] == 1]
    return np.asarray(tf.reduce_mean(moment(value), axes, keepdims=True), np.float64)


def _by_group(
    analysis: Analysis, plane: np.ndarray, values: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(group, channels, values) of a tensor's labelled positions."""
    labels, numbers = np.broadcast_arrays(plane, values)
    labels, numbers = labels.ravel(), numbers.ravel()
    numbers, labels = numbers[labels >= 0], labels[labels >= 0]
    for group in np.unique(analysis.group_of[labels]).tolist():
        here = analysis.group_of[labels] == group
        yield group, analysis.channel_of[labels[here]], numbers[here]
