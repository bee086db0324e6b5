"""Layers between unlike scales: boundaries of schemes, and inputs of ops that have one scale."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf
from tfedge.quant.configs import Untracked, plain_inference, source_quantizer
from tfedge.quant.integer_fixed import requantized_fixed
from tfedge.quant.integer_grid import Range, joined, quantizes
from tfedge.quant.integer_sums import requantized
from tfedge.quantized import BOUNDARY_SCOPE, export_bits


class Boundary(keras.layers.Layer):
    """Stands between unlike schemes, or what is quantized and what is not; hands its input through.

    In an export it is an ELU that keeps the converter from quantizing across (see
    `quantized.BOUNDARY_SCOPE`).
    """

    def call(self, inputs: Any) -> Any:
        """The input itself, float32, any shape."""
        if not export_bits():
            return tf.identity(inputs)
        with tf.name_scope(BOUNDARY_SCOPE):
            return tf.nn.elu(inputs)


class Requantize(keras.layers.Layer):
    """Stands for the QUANTIZE that brings a tensor to the scale of the op that reads it.

    A CONCATENATION (MAXIMUM, MINIMUM) has one scale for its inputs and its output. Left to itself
    the converter would bring a pooling or padding before it to that scale too, and with it all
    others that read what it gives; where two such ops read it, it gives up. So the scales part
    here. In training the layer hands its input through: the quantizer behind the op rounds. In
    inference it rounds as the runtime's QUANTIZE does.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._source: Untracked | None = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; finds the quantizer of what it reads."""
        if hasattr(inputs, "_keras_history"):
            self._source = Untracked(source_quantizer(inputs, required=False))
        return super().__call__(inputs, *args, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: Any, training: Any = None) -> Any:
        """The input, float32, any shape; in inference on the grid of the op that reads it."""
        if training is None:
            training = keras.backend.learning_phase()
        goal = joined(self)
        if goal is None:
            return tf.identity(inputs)
        if export_bits():
            with tf.name_scope(BOUNDARY_SCOPE):
                inputs = tf.nn.elu(inputs)
            return goal[0](inputs, False, goal[1])
        source: Range | None = None if self._source is None else self._source.value
        if source and plain_inference(training) and quantizes(source) and quantizes(goal):
            if source[0].num_bits == 8:
                return requantized(inputs, source, goal)
            return requantized_fixed(inputs, source, goal)
        return tf.identity(inputs)
