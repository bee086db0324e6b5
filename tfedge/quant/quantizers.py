"""Quantizers on tfmot's: of activations, of kernels, and of outputs whose range TFLite fixes.

tfmot's own classes are the base; what differs, and why:

- An activation range that nothing has set yet takes the first training batch's range; tfmot starts
  at [-6, 6] and creeps with a moving average of 0.999, so that a short training wastes half of the
  codes.
- Depthwise kernels have one scale per channel (tfmot: one for the kernel), as TFLite's have.
- 16-bit activations are symmetric with zero point 0, which the int16 kernels demand.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import tf
from tfedge.quant import _tfmot, observe
from tfedge.quant.coded import by_codes
from tfedge.quantized import STAND_INS, UNSET, export_bits

EMA_DECAY = 0.999
"""Share of the old range kept at each training step (tfmot's value)."""

INT16_RATIO = 32768.0 / 32767.0
"""-min/max of a 16-bit range whose zero point is exactly 0: scale = max / 32767."""

FIXED_RANGES: dict[tuple[int, str], tuple[float, float]] = {
    (8, "sigmoid"): (0.0, 255.0 / 256.0),
    (8, "softmax"): (0.0, 255.0 / 256.0),
    (8, "tanh"): (-1.0, 127.0 / 128.0),
    (16, ""): (-1.0, 32767.0 / 32768.0),
}
"""Output ranges that TFLite's kernels prescribe, by bits and function."""

_LEAST_CHANNEL = 1e-5  # A channel's range is at least this share of the largest channel's.


class ActivationQuantizer(_tfmot.MovingAverageQuantizer):
    """Fake-quantizes an activation with one range; keeps the range as a moving average.

    8 bits: asymmetric, the range holds 0. 16 bits: symmetric, max = m, min = -m*32768/32767 with
    m = max(|min|, |max|), so that the scale is m/32767 and the zero point 0.

    Args:
        num_bits: 8 or 16.
    """

    def __init__(self, num_bits: int = 8) -> None:
        super().__init__(num_bits, per_axis=False, symmetric=num_bits == 16, narrow_range=False)

    def __call__(self, inputs: Any, training: Any, weights: dict, **kwargs: Any) -> Any:
        """Quantizes `inputs` (float32, any shape); updates the range where `training` is true."""
        del kwargs
        low, high = weights["min_var"], weights["max_var"]
        watcher = observe.active()
        if watcher is not None:
            watcher.activation(low, high, self.num_bits, inputs)
            return inputs
        if training:
            low, high = self._update(inputs, low, high)
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, low, high, num_bits=self.num_bits
        )

    def _update(self, inputs: Any, low: Any, high: Any) -> tuple[Any, Any]:
        """Moves the range towards this batch's; returns the new values (no gradient)."""
        batch_low = tf.minimum(tf.reduce_min(inputs), 0.0)
        batch_high = tf.maximum(tf.reduce_max(inputs), 0.0)
        unset = tf.logical_and(tf.equal(low, UNSET[0]), tf.equal(high, UNSET[1]))
        keep = tf.where(unset, 0.0, EMA_DECAY)
        new_low = keep * low + (1.0 - keep) * batch_low
        new_high = keep * high + (1.0 - keep) * batch_high
        if self.symmetric:
            new_high = tf.maximum(new_high, -new_low / INT16_RATIO)
            new_low = -INT16_RATIO * new_high
        new_low, new_high = tf.stop_gradient(new_low), tf.stop_gradient(new_high)
        low.assign(new_low)
        high.assign(new_high)
        return new_low, new_high

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"num_bits": self.num_bits}


class FixedQuantizer(_tfmot.Quantizer):
    """Fake-quantizes the output of sigmoid, softmax or tanh to the range that TFLite prescribes.

    8 bits: scale 1/256 from 0 for sigmoid and softmax, 1/128 for tanh; 16 bits: scale 1/32768 for
    all, zero point 0.

    Args:
        function: "sigmoid", "softmax" or "tanh".
        num_bits: 8 or 16.
        final: True for an output of the model: it is quantized in the file only. A probability
            that rounds to 0 would have an infinite cross-entropy and no gradient.
    """

    def __init__(self, function: str, num_bits: int = 8, final: bool = False) -> None:
        self.function, self.num_bits, self.final = function, num_bits, final

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Adds no variables."""
        return {}

    def __call__(self, inputs: Any, training: Any, weights: dict, **kwargs: Any) -> Any:
        """Quantizes `inputs`."""
        del training, weights, kwargs
        if observe.active() is not None or (self.final and not export_bits()):
            return inputs
        low, high = self.bounds()
        return tf.quantization.fake_quant_with_min_max_args(
            inputs, low, high, num_bits=self.num_bits
        )

    def bounds(self) -> tuple[float, float]:
        """The prescribed (min, max)."""
        return FIXED_RANGES[16, ""] if self.num_bits == 16 else FIXED_RANGES[8, self.function]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"function": self.function, "num_bits": self.num_bits, "final": self.final}


class WeightQuantizer(_tfmot.LastValueQuantizer):
    """Fake-quantizes a kernel to symmetric int8 in [-127, 127], by its present range.

    Args:
        axis: Where the scales run: "channel" (last axis, one scale per output channel; kernels of
            rank 4), "depthwise" (the last two axes together, [h, w, c, m]), "unit" (last axis of a
            Dense kernel), "filter" (axis 2 of a Conv2DTranspose kernel) or "tensor" (one scale).
    """

    def __init__(self, axis: str) -> None:
        super().__init__(8, per_axis=axis != "tensor", symmetric=True, narrow_range=True)
        self.axis = axis

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Adds the range variables `<name>_min` and `<name>_max` to the wrapper `layer`."""
        if self.axis == "depthwise":
            tensor_shape = (int(tensor_shape[-2]) * int(tensor_shape[-1]),)
        if self.axis == "filter":
            tensor_shape = (int(tensor_shape[-2]),)
        return self._add_range_weights(layer, name, self.axis != "tensor", tensor_shape)

    def __call__(self, inputs: Any, training: Any, weights: dict, **kwargs: Any) -> Any:
        """Quantizes the kernel `inputs`; takes its present range where `training` is true."""
        del kwargs
        low, high = weights["min_var"], weights["max_var"]
        watching = observe.active() is not None
        if training or watching:
            limit = tf.stop_gradient(self._limit(inputs))
            low.assign(-limit)
            high.assign(limit)
            low, high = -limit, limit
        if export_bits() and self.axis in ("unit", "filter"):
            return by_codes(inputs, self._fake_quantize, low, high, self.num_bits)
        return inputs if watching else self._fake_quantize(inputs, low, high)

    def _grouped(self, kernel: Any) -> Any:
        """The kernel with its channels on the last axis."""
        if self.axis == "filter":
            return tf.transpose(kernel, (0, 1, 3, 2))
        if self.axis != "depthwise":
            return kernel
        h, w, c, m = kernel.shape
        return tf.reshape(kernel, (h, w, 1, c * m))

    def _limit(self, kernel: Any) -> Any:
        """The largest magnitude (per channel), never 0: a scale of 0 breaks the bias."""
        size = tf.abs(self._grouped(kernel))
        if self.axis == "tensor":
            limit = tf.reduce_max(size)
            return tf.where(limit > 0.0, limit, 1.0)
        limit = tf.reduce_max(size, axis=list(range(len(size.shape) - 1)))
        largest = tf.reduce_max(limit)
        return tf.maximum(limit, tf.where(largest > 0.0, _LEAST_CHANNEL * largest, 1.0))

    def _fake_quantize(self, kernel: Any, low: Any, high: Any) -> Any:
        if self.axis == "tensor":
            return tf.quantization.fake_quant_with_min_max_vars(
                kernel, low, high, num_bits=8, narrow_range=True
            )
        out = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            self._grouped(kernel), low, high, num_bits=8, narrow_range=True
        )
        if self.axis == "filter":
            return tf.transpose(out, (0, 1, 3, 2))
        return tf.reshape(out, kernel.shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"axis": self.axis}


class FileActivation:
    """A sigmoid, softmax, tanh or swish computed as the file will compute it.

    In swish, x*sigmoid(x), the file quantizes the sigmoid to its prescribed range. In an export
    with 16-bit activations an op of a free range stands for the function (see `quantized`).

    Args:
        function: The layer's own activation function.
        num_bits: 8 or 16.
    """

    def __init__(self, function: Any, num_bits: int) -> None:
        self.function, self.num_bits = function, num_bits
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, inputs: Any) -> Any:
        """The activation of `inputs` (float32, any shape)."""
        if self.__name__ in ("swish", "silu"):
            gate = FixedQuantizer("sigmoid", self.num_bits)
            return inputs * gate(self._compute("sigmoid", tf.sigmoid, inputs), False, {})
        return self._compute(self.__name__, self.function, inputs)

    @staticmethod
    def _compute(name: str, function: Any, inputs: Any) -> Any:
        if export_bits() == 16:
            return tf.nn.leaky_relu(inputs, alpha=STAND_INS[name])
        return function(inputs)


def round_as_pooling(values: Any, quantizer: Any, variables: dict) -> Any:
    """Rounds averages to the codes of the tensor that was averaged, as AVERAGE_POOL_2D does.

    The kernel adds up signed codes and rounds the mean half away from code 0 (all of TFLite's
    resolvers alike), where fake quantization would round half up: with 2x2 windows a quarter of
    all means are such halves. The gradient passes straight through.

    Args:
        values: float32, any shape; means of values on the quantizer's grid.
        quantizer: The `ActivationQuantizer` or `FixedQuantizer` of the averaged tensor.
        variables: Its variables.
    """
    if observe.active() is not None or export_bits():
        return values
    if isinstance(quantizer, FixedQuantizer):
        low, high = quantizer.bounds()
    else:
        low, high = variables["min_var"], variables["max_var"]
    levels, least = 2.0**quantizer.num_bits - 1.0, -(2.0 ** (quantizer.num_bits - 1))
    scale = (high - low) / levels
    zero = tf.round(least - low / scale)
    codes = values / scale + zero
    # Means of up to some hundred codes: a half is told from its neighbours by far more than 1e-3.
    whole = tf.sign(codes) * tf.floor(tf.abs(codes) + 0.5 + 1e-3)
    return values + tf.stop_gradient((whole - zero) * scale - values)
