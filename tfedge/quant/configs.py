"""How one layer is quantized in training: quantizers, QuantizeConfig and wrapper on tfmot's.

tfmot's own classes are the base; what differs, and why:

- An activation range that nothing has set yet takes the first training batch's range; tfmot starts
  at [-6, 6] and creeps with a moving average of 0.999, so that a short training wastes half of the
  codes.
- Depthwise kernels have one scale per channel (tfmot: one for the kernel), as TFLite's have.
- 16-bit activations are symmetric with zero point 0, which the int16 kernels demand.
- A frozen layer stays frozen, and a wrapped layer gets its own variables back after each call, so
  that it saves and reloads.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import tf
from tfedge.quant import _tfmot, observe

EMA_DECAY = 0.999
"""Share of the old range kept at each training step (tfmot's value)."""

UNSET = (-6.0, 6.0)
"""tfmot's initial range: means that neither calibration nor training has set it."""

INT16_RATIO = 32768.0 / 32767.0
"""-min/max of a 16-bit range whose zero point is exactly 0: scale = max / 32767."""

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


class WeightQuantizer(_tfmot.LastValueQuantizer):
    """Fake-quantizes a kernel to symmetric int8 in [-127, 127], by its present range.

    Args:
        axis: Where the scales run: "channel" (last axis, one scale per output channel; kernels of
            rank 4), "depthwise" (the last two axes together, [h, w, c, m]) or "tensor" (one scale;
            Dense and Conv2DTranspose, whose per-channel form the TFLite converter rejects).
    """

    def __init__(self, axis: str) -> None:
        super().__init__(8, per_axis=axis != "tensor", symmetric=True, narrow_range=True)
        self.axis = axis

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Adds the range variables `<name>_min` and `<name>_max` to the wrapper `layer`."""
        if self.axis == "depthwise":
            tensor_shape = (int(tensor_shape[-2]) * int(tensor_shape[-1]),)
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
        return inputs if watching else self._fake_quantize(inputs, low, high)

    def _grouped(self, kernel: Any) -> Any:
        """The kernel with its channels on the last axis."""
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
        return tf.reshape(out, kernel.shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"axis": self.axis}


def _swap(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute past Keras's tracking, which would drop and reorder the variables."""
    object.__setattr__(layer, name, value)


class LayerConfig(_tfmot.QuantizeConfig):
    """Says what is quantized in one layer.

    Args:
        kernels: Kernel attributes of the layer with their `WeightQuantizer` axis, for example
            {"kernel": "channel"}.
        before_activation: Quantize what enters the layer's activation (softmax, sigmoid, tanh:
            their outputs have fixed ranges in TFLite and need none).
        output: Quantize the layer's output.
        activation_bits: 8 or 16.
    """

    def __init__(
        self,
        kernels: dict[str, str] | None = None,
        before_activation: bool = False,
        output: bool = False,
        activation_bits: int = 8,
    ) -> None:
        self.kernels = dict(kernels or {})
        self.before_activation = before_activation
        self.output = output
        self.activation_bits = activation_bits

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Kernels of the layer with their quantizers."""
        return [
            (getattr(layer, name), WeightQuantizer(axis)) for name, axis in self.kernels.items()
        ]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """The activation whose input is quantized, if any."""
        if not self.before_activation:
            return []
        return [(layer.activation, ActivationQuantizer(self.activation_bits))]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Lets the layer compute with the quantized kernels."""
        for name, value in zip(self.kernels, quantize_weights, strict=True):
            _swap(layer, name, value)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Lets the layer compute with the quantized activation."""
        for value in quantize_activations:
            _swap(layer, "activation", value)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The output's quantizer, if any."""
        return [ActivationQuantizer(self.activation_bits)] if self.output else []

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "kernels": self.kernels,
            "before_activation": self.before_activation,
            "output": self.output,
            "activation_bits": self.activation_bits,
        }


class InputQuantizer(_tfmot.QuantizeLayer):
    """tfmot's layer that quantizes a model input; builds once (see `QuantizedLayer.build`)."""

    def build(self, input_shape: Any) -> None:
        """Adds the range."""
        if not hasattr(self, "quantizer_vars"):
            super().build(input_shape)


class QuantizedLayer(_tfmot.QuantizeWrapperV2):
    """tfmot's wrapper, mended: a frozen layer stays frozen, and the layer is itself after a call.

    tfmot leaves the fake-quantized tensors in the place of the layer's kernels (so that `.keras`
    files do not reload) and trains the kernels of a layer with `trainable=False`.
    """

    def build(self, input_shape: Any) -> None:
        """Adds the ranges, once: loading a `.keras` file asks twice, and tfmot then adds twice."""
        if not hasattr(self, "_weight_vars"):
            super().build(input_shape)

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """Runs the layer with quantized kernels and activation, then puts its own back."""
        own = {name: getattr(self.layer, name) for name in self.quantize_config.kernels}
        if self.quantize_config.before_activation:
            own["activation"] = self.layer.activation
        try:
            return super().call(inputs, training=training, **kwargs)
        finally:
            for name, value in own.items():
                _swap(self.layer, name, value)

    @property
    def trainable_weights(self) -> list[Any]:
        """The layer's trainable weights; none where the layer is frozen."""
        return self._dedup_weights(list(self.layer.trainable_weights))

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The layer's other weights, then the ranges."""
        return self._dedup_weights(
            [*self.layer.non_trainable_weights, *self._non_trainable_weights]
        )


def custom_objects() -> dict[str, Any]:
    """Everything that `load_model(path, custom_objects=...)` needs for a quantize-aware model.

    Holds tfmot's own classes too, so that models made by tfmot itself load.
    """
    scope = _tfmot.quantize_scope().custom_objects
    found = {k: v for part in scope for k, v in part.items()}
    ours = (ActivationQuantizer, WeightQuantizer, LayerConfig, InputQuantizer, QuantizedLayer)
    return {**found, **{c.__name__: c for c in ours}}
