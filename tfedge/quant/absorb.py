"""High-bias absorption: what all values of a channel have in common goes into the next bias.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", 4.1.3:
relu(x - c) = relu(x) - c where x >= c. So the part c of a channel that nearly all of its values are
above is taken off the bias before a relu, and W c is added to the bias behind it; the range of the
channel's activation shrinks by c. c = max(0, mean - 3 standard deviations) of what enters the relu,
and never more than the smallest value that the samples show, so that on them nothing changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.graph.execute import execute
from tfedge.graph.rewrite import Rewriter, activation_name, as_is
from tfedge.graph.surgery import rebuild
from tfedge.graph.trace import Call, trace

_L = keras.layers
_DEVIATIONS = 3.0
_SHIFTABLE = (_L.Dense, _L.Conv2D, _L.DepthwiseConv2D)


def absorbed(model: Any, samples: list[Any]) -> tuple[Any, int]:
    """A float model with high biases moved behind their relus.

    Only where it is exact at every position: the relu has no upper end, one layer alone reads it,
    and that layer is dense or a convolution that pads nothing.

    Args:
        model: A float tf_keras model, batch norms folded.
        samples: One tensor an input, [N, ...], which show what enters each relu.

    Returns:
        A new model, and the number of channels that were shifted.
    """
    copy = rebuild(trace(model))
    site = Rewriter(trace(copy), as_is)
    pairs = {c.name: pair for c in site.graph.calls if (pair := _pair(site, c)) is not None}
    shifted = 0
    shares = _commons(site, pairs, samples)
    for first, (_, second) in pairs.items():
        common = shares[first]
        if not common.any():
            continue
        maker, reader = (_layer(site, n) for n in (first, second))
        maker.bias.assign(maker.bias - common)
        reader.bias.assign(reader.bias + _through(reader, common))
        shifted += int(np.count_nonzero(common))
    return copy, shifted


def _layer(site: Rewriter, name: str) -> Any:
    return site.graph.layers()[name]


def _pair(site: Rewriter, call: Call) -> tuple[str, str] | None:
    """The relu (its layer, or the layer itself) and the layer behind it, of a layer that fits."""
    if not _has_bias(call.layer) or site.counts[call.name] > 1:
        return None
    relu: Call | None = call
    if activation_name(call.layer) == "linear":
        relu = _sole_reader(site, call)
        if relu is None or site.counts[relu.name] > 1 or not _is_relu(relu.layer):
            return None
    elif activation_name(call.layer) != "relu":
        return None
    reader = _sole_reader(site, relu)
    if reader is None or site.counts[reader.name] > 1 or not _takes(reader.layer):
        return None
    return relu.name, reader.name


def _has_bias(layer: Any) -> bool:
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return type(layer) in _SHIFTABLE and layer.bias is not None and last


def _takes(layer: Any) -> bool:
    """Whether W c is the same at every position: the layer reads no zeros from a padding."""
    if not _has_bias(layer) or getattr(layer, "groups", 1) != 1:
        return False
    return type(layer) is _L.Dense or layer.padding == "valid" or set(layer.kernel_size) == {1}


def _is_relu(layer: Any) -> bool:
    if type(layer) is _L.ReLU:
        return layer.max_value is None and not layer.threshold and not layer.negative_slope
    return type(layer) is _L.Activation and activation_name(layer) == "relu"


def _sole_reader(site: Rewriter, call: Call) -> Call | None:
    """The one call that reads what a call gives, where nothing else does."""
    if len(call.outputs) != 1 or call.outputs[0] in site.outputs:
        return None
    readers = site.readers.get(call.outputs[0], [])
    return readers[0] if len(readers) == 1 else None


def _commons(
    site: Rewriter, pairs: dict[str, tuple[str, str]], samples: list[Any]
) -> dict[str, np.ndarray]:
    """C of each channel, by the name of the layer whose bias it is taken off; float32 [channels].

    Of a layer with its relu inside, the values behind the relu serve: where all are above 0 they
    are those before it.
    """
    found: dict[str, np.ndarray] = {}
    for call, _, outputs in execute(site.graph, samples):
        if call.name not in pairs:
            continue
        values = tf.reshape(outputs[0], (-1, outputs[0].shape[-1])).numpy().astype(np.float64)
        common = values.mean(0) - _DEVIATIONS * values.std(0)
        found[call.name] = np.maximum(0.0, np.minimum(common, values.min(0))).astype(np.float32)
    return found


def _through(layer: Any, common: np.ndarray) -> np.ndarray:
    """W c: what a constant input of each channel gives, float32 [output channels]."""
    if type(layer) is _L.DepthwiseConv2D:
        kernel = layer.depthwise_kernel.numpy().sum((0, 1))  # [inputs, multiplier]
        return (kernel * common[:, None]).reshape(-1)
    kernel = layer.kernel.numpy()
    return common @ kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
