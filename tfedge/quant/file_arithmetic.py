"""What TFLite's kernels compute otherwise than Keras does, for the simulation."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf
from tfedge.graph.rewrite import activation_name
from tfedge.quant import observe
from tfedge.quant.ends import Phase
from tfedge.quant.quantizers import FixedQuantizer
from tfedge.quantized import CONCAT_SCOPE, STAND_INS, export_bits

_RELUS = (keras.activations.relu, tf.nn.relu, tf.nn.relu6)


class FileActivation:
    """A sigmoid, softmax, tanh or swish computed as the file will compute it.

    In swish, x*sigmoid(x), the file quantizes the sigmoid to its prescribed range. In an export
    with 16-bit activations an op of a free range stands for the function (see `quantized`).

    Args:
        function: The layer's own activation function.
        num_bits: 8 or 16.
        phase: Of the training.
    """

    def __init__(self, function: Any, num_bits: int, phase: Phase | None = None) -> None:
        self.function, self.num_bits, self.phase = function, num_bits, phase or Phase()
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, inputs: Any) -> Any:
        """The activation of `inputs` (float32, any shape)."""
        if self.__name__ in ("swish", "silu"):
            gate = FixedQuantizer("sigmoid", self.num_bits)
            gate.phase = self.phase
            return inputs * gate(self._compute("sigmoid", tf.sigmoid, inputs), False, {})
        return self._compute(self.__name__, self.function, inputs)

    def _compute(self, name: str, function: Any, inputs: Any) -> Any:
        if export_bits() and self.num_bits == 16:
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
    if observe.active() is not None or export_bits() or not quantizer.phase.quantizing:
        return values
    low, high = quantizer.bounds(variables)
    levels, least = 2.0**quantizer.num_bits - 1.0, -(2.0 ** (quantizer.num_bits - 1))
    scale = (high - low) / levels
    zero = tf.round(least - low / scale)
    codes = values / scale + zero
    # Means of up to some hundred codes: a half is told from its neighbours by far more than 1e-3.
    whole = tf.sign(codes) * tf.floor(tf.abs(codes) + 0.5 + 1e-3)
    return values + tf.stop_gradient((whole - zero) * scale - values)


def concatenation_stand_in(inputs: list[Any], axis: int) -> Any:
    """What stands for a concatenation in a 16-bit export (see `quantized.CONCAT_SCOPE`).

    Args:
        inputs: Tensors of static shape.
        axis: The axis to join.
    """
    axis = axis % len(inputs[0].shape)
    sizes = [int(x.shape[axis]) for x in inputs]
    result = None
    with tf.name_scope(CONCAT_SCOPE):
        for i, x in enumerate(inputs):
            widths = [[0, 0] for _ in x.shape]
            widths[axis] = [sum(sizes[:i]), sum(sizes[i + 1 :])]
            padded = tf.pad(x, widths)
            result = padded if result is None else tf.maximum(result, padded)
    return result


def relu_of(layer: Any) -> tuple[bool, float | None] | None:
    """What there is of a relu at the end of a layer that TFLite computes in one op.

    Args:
        layer: Any layer.

    Returns:
        None: no relu. Else (whether the layer is nothing but the relu, where it clips or None).
    """
    if isinstance(layer, keras.layers.ReLU):
        if float(layer.negative_slope or 0) or float(layer.threshold or 0):
            return None
        return True, None if layer.max_value is None else float(layer.max_value)
    ceilings = {"relu": None, "relu6": 6.0}
    name = activation_name(layer)
    if name not in ceilings or getattr(layer, "activation", None) not in _RELUS:
        return None
    return isinstance(layer, keras.layers.Activation), ceilings[name]
