"""Bias correction: each quantized layer gives what the float layer gives on average.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", 4.2 and
appendix D: E[y~] - E[y] per output channel, before the activation, is taken off the bias. It is
measured on calibration data, in order of execution, so that each layer sees inputs that are
corrected already (`correct`, empirical). Or, in closed form and in one pass of the float network,
for the weights' part alone: (W~ - W) E[x] (`correct_expected`, analytic).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.quant import observe
from tfedge.quant.linear_view import LinearView, view_of


class _Means:
    """Notes down what each layer gives on average in the float path."""

    def __init__(self) -> None:
        self.sums: dict[int, np.ndarray] = {}
        self.counts: dict[int, int] = {}

    def reads(self, wrapper: Any, inputs: Any) -> None:
        """Nothing: only outputs matter."""

    def gives(self, wrapper: Any, values: Any) -> Any:
        """Adds up the values by channel."""
        axes = [a for a in range(len(values.shape)) if a != _axis(wrapper.layer, values)]
        total = tf.reduce_sum(tf.cast(values, tf.float64), axes).numpy()
        count = int(np.prod([values.shape[a] for a in axes]))
        key = id(wrapper)
        self.sums[key] = self.sums.get(key, 0.0) + total
        self.counts[key] = self.counts.get(key, 0) + count
        return values

    def mean(self, wrapper: Any) -> np.ndarray:
        """float64 [channels]."""
        return self.sums[id(wrapper)] / self.counts[id(wrapper)]


class _Correction(_Means):
    """Corrects each layer on its way through the quantized path, at its last call."""

    def __init__(self, wanted: _Means, calls: dict[int, int]) -> None:
        super().__init__()
        self._wanted, self._left = wanted, dict(calls)
        self.corrected = 0

    def gives(self, wrapper: Any, values: Any) -> Any:
        """Moves the bias, and what has been computed with it."""
        super().gives(wrapper, values)
        self._left[id(wrapper)] -= 1
        if self._left[id(wrapper)] or wrapper.layer.bias is None:
            return values
        shift = (self._wanted.mean(wrapper) - self.mean(wrapper)).astype(np.float32)
        wrapper.layer.bias.assign_add(shift)
        self.corrected += 1
        shape = [1] * len(values.shape)
        shape[_axis(wrapper.layer, values)] = -1
        return values + tf.reshape(shift, shape)


class _Calls(_Means):
    """Counts how often each layer is called."""

    def gives(self, wrapper: Any, values: Any) -> Any:
        """One more call."""
        self.counts[id(wrapper)] = self.counts.get(id(wrapper), 0) + 1
        return values


def correct(model: Any, samples: list[Any]) -> int:
    """Corrects the biases of a quantize-aware model whose ranges are set.

    Layers without a bias are left as they are. One batch: all of it is in memory at once.

    Args:
        model: A quantize-aware model without batch norms behind its convolutions; its biases are
            changed.
        samples: One tensor an input, [N, ...], in the model's order.

    Returns:
        How many layers were corrected.
    """
    packed = tf.nest.pack_sequence_as(model._nested_inputs, samples)
    wanted, calls = _Means(), _Calls()
    with observe.watching(observe.Silent()), observe.visiting(wanted):
        model(packed, training=False)
    with observe.watching(observe.Silent()), observe.visiting(calls):
        model(tf.nest.map_structure(lambda t: t[:1], packed), training=False)
    correction = _Correction(wanted, calls.counts)
    with observe.visiting(correction):
        model(packed, training=False)
    return correction.corrected


class _Inputs:
    """Notes down what each layer reads on average in the float path."""

    def __init__(self) -> None:
        self.means: dict[int, tuple[Any, LinearView, np.ndarray, int]] = {}

    def reads(self, wrapper: Any, inputs: Any) -> None:
        """Adds up the rows by tap."""
        view = view_of(wrapper.layer)
        if view is None or wrapper.layer.bias is None:
            return
        rows = view.rows(inputs)
        total = tf.reduce_sum(tf.cast(rows, tf.float64), 0).numpy()
        _, _, before, count = self.means.get(id(wrapper), (None, None, 0.0, 0))
        self.means[id(wrapper)] = (wrapper, view, before + total, count + int(rows.shape[0]))

    def gives(self, wrapper: Any, values: Any) -> Any:
        """Nothing: only inputs matter."""
        del wrapper
        return values


def correct_expected(model: Any, samples: list[Any]) -> int:
    """Takes (W~ - W) E[x] off the biases: what rounding the weights adds on average.

    E[x] is the mean of the float network's activations on the samples (which may be made up, see
    `synthetic`), not derived from batch norms: so it holds behind sums and pooling, too.

    Args:
        model: A quantize-aware model whose ranges are set; its biases are changed.
        samples: One tensor an input, [N, ...], in the model's order.

    Returns:
        How many layers were corrected.
    """
    inputs = _Inputs()
    with observe.watching(observe.Silent()), observe.visiting(inputs):
        model(tf.nest.pack_sequence_as(model._nested_inputs, samples), training=False)
    for wrapper, view, total, count in inputs.means.values():
        (kernel, quantizer, variables), *_ = wrapper._weight_vars
        rounded = np.asarray(quantizer(kernel, False, variables), np.float64)
        error = view.matrix(rounded) - view.matrix(kernel.numpy().astype(np.float64))
        mean = total / count
        shift = (mean * error).sum(0) if view.depthwise else mean @ error
        wrapper.layer.bias.assign_sub(shift.astype(np.float32))
    return len(inputs.means)


def _axis(layer: Any, values: Any) -> int:
    """The channel axis of what a layer gives."""
    if isinstance(layer, keras.layers.Dense):
        return len(values.shape) - 1
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else len(values.shape) - 1
