"""Convolutions and dense layers as matrix products: rows of inputs times a matrix of weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras, tf

_L = keras.layers


class LinearView:
    """One layer with a kernel as y = x W, at every position of its output.

    Args:
        layer: A Dense, a Conv2D of one group or a DepthwiseConv2D (see `view_of`).

    Attributes:
        depthwise: Whether every output channel has inputs of its own; rows are then
            [positions, taps, channels] instead of [positions, taps].
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.depthwise = type(layer) is _L.DepthwiseConv2D

    @property
    def kernel(self) -> Any:
        """The kernel's variable."""
        return self.layer.depthwise_kernel if self.depthwise else self.layer.kernel

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel as [taps, output channels]."""
        if self.depthwise:
            return kernel.reshape(-1, kernel.shape[2] * kernel.shape[3])
        return kernel.reshape(-1, kernel.shape[-1])

    def rows(self, inputs: Any) -> Any:
        """What each output position reads.

        Args:
            inputs: float32 [N, ...], what the layer reads.

        Returns:
            [positions, taps], of a depthwise layer [positions, taps, output channels].
        """
        layer = self.layer
        if type(layer) is _L.Dense:
            return tf.reshape(inputs, (-1, inputs.shape[-1]))
        height, width = layer.kernel_size
        patches = tf.image.extract_patches(
            inputs, (1, height, width, 1), (1, *layer.strides, 1), (1, *layer.dilation_rate, 1),
            layer.padding.upper(),
        )  # fmt: skip
        if not self.depthwise:
            return tf.reshape(patches, (-1, patches.shape[-1]))
        rows = tf.reshape(patches, (-1, height * width, inputs.shape[-1]))
        return tf.repeat(rows, layer.depth_multiplier, axis=-1)

    def outputs(self, values: Any) -> Any:
        """What the layer gives, as [positions, output channels]."""
        return tf.reshape(values, (-1, values.shape[-1]))


def view_of(layer: Any) -> LinearView | None:
    """A layer as a matrix product; None where it is none (grouped, transposed, channels first)."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    if type(layer) is _L.Dense or type(layer) is _L.DepthwiseConv2D:
        return LinearView(layer)
    if type(layer) is _L.Conv2D and layer.groups == 1:
        return LinearView(layer)
    return None
