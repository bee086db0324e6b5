"""Functions that the runtime looks up in tables: what the table holds, and where it ends.

With 16 bits EXP, LOG and RSQRT are straight lines between 512 points over the whole range of codes,
so that 1/sqrt(x) near 0 is far off; the simulation draws the same lines.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf
from tfedge.quant import observe
from tfedge.quant.configs import source_quantizer
from tfedge.quantized import STAND_INS, export_bits


class Sourced(keras.layers.Layer):
    """A layer that knows the quantizer of what it reads."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._range: Any = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; finds the quantizer of what it reads, if there is one."""
        if hasattr(inputs, "_keras_history") and self._range is None:
            found = source_quantizer(inputs, required=False)
            if found is not None:
                object.__setattr__(self, "_range", found)  # past Keras, which would track it
        return super().__call__(inputs, *args, **kwargs)

    @property
    def bits(self) -> int:
        """Bits of what the layer reads; 0 where it is not quantized (now)."""
        if self._range is None or observe.active() is not None:
            return 0
        if not self._range[0].phase.quantizing:
            return 0
        return int(self._range[0].num_bits)

    def step(self) -> Any:
        """Size of a step of what the layer reads, float32 scalar."""
        quantizer, variables = self._range
        levels = 2.0**quantizer.num_bits - 1.0
        low, high = quantizer.bounds(variables)
        return tf.stop_gradient((high - low) / levels)


class AboveZero(Sourced):
    """Raises values to 1/256 of their range; in a float model the identity.

    That is one step of 8 bits, and with 16 the table's first point above 0. RSQRT refuses code 0,
    and 1/sqrt(0) has no gradient.
    """

    def call(self, inputs: Any) -> Any:
        """The values, float32, any shape; raised where they are quantized."""
        if not self.bits:
            return inputs
        return tf.maximum(inputs, self.step() * 2.0 ** (0 if self.bits == 8 else 7))


class Tabled(Sourced):
    """One of the functions exp, log and rsqrt, as the file computes it.

    Args:
        function: Its name.
        **kwargs: As for any layer.
    """

    def __init__(self, function: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs: Any) -> Any:
        """The function of float32 values of any shape."""
        function = _FUNCTIONS[self.function]
        if export_bits() and self.bits == 16:
            return tf.nn.leaky_relu(inputs, alpha=STAND_INS[self.function])
        if self.bits != 16 or export_bits():
            return function(inputs)
        exact = function(inputs)
        return exact + tf.stop_gradient(self._interpolated(inputs) - exact)

    def _interpolated(self, x: Any) -> Any:
        """Lines between the table's points, all but the last moved by half the middle's error."""
        function, step = _FUNCTIONS[self.function], self.step()
        width = 65535.0 / 512.0 * step

        def entry(index: Any) -> Any:
            left = index * width - 0.5 * step
            middle = 0.5 * (function(left) + function(left + width)) - function(left + 0.5 * width)
            return function(left) - tf.where(index < 256.0, 0.5 * middle, 0.0)

        codes = tf.round(x / step)
        index = tf.floor(codes / 128.0)
        base = entry(index)
        return base + (entry(index + 1.0) - base) * (codes - 128.0 * index) / 128.0

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "function": self.function}


_FUNCTIONS = {"exp": tf.math.exp, "log": tf.math.log, "rsqrt": tf.math.rsqrt}
