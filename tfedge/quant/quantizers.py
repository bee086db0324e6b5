"""Quantizers on tfmot's: of activations, of kernels, and of outputs whose range TFLite fixes.

tfmot's own classes are the base; what differs, and why:

- An activation range that nothing has set yet takes the first training batch's range; tfmot starts
  at [-6, 6] and creeps with a moving average of 0.999, so that a short training wastes half of the
  codes. A range may also stay as calibrated, or be learned.
- Depthwise kernels have one scale per channel (tfmot: one for the kernel), as TFLite's have.
- A kernel's range is its present largest magnitude, also in inference: tfmot keeps the range of
  the last training step, which the optimizer has moved away from. Nothing is stored.
- 16-bit activations are symmetric with zero point 0, which the int16 kernels demand.
- Under tf.distribute a moving range sees the whole batch, not a replica's share of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.errors import InputError
from tfedge.quant import _tfmot, fake_quant, observe, preserving
from tfedge.quant.coded import by_codes
from tfedge.quant.ends import (
    INT16_RATIO,
    LEAST_LEARNED,
    Derived,
    Phase,
    above_unset,
    add_end,
    check_mode,
    over_replicas,
    present_value,
    set_range,
)
from tfedge.quant.fake_quant import constant
from tfedge.quantized import UNSET, export_bits

EMA_DECAY = 0.999
"""Share of the old range kept at each training step (tfmot's value)."""

FIXED_RANGES: dict[tuple[int, str], tuple[float, float]] = {
    (8, "sigmoid"): (0.0, 255.0 / 256.0),
    (8, "softmax"): (0.0, 255.0 / 256.0),
    (8, "tanh"): (-1.0, 127.0 / 128.0),
    (16, ""): (-1.0, 32767.0 / 32768.0),
}
"""Output ranges that TFLite's kernels prescribe, by bits and function."""

WEIGHT_BITS = (4, 8)
"""Bits that a kernel can have."""

_LEAST_CHANNEL = 1e-5  # A channel's range is at least this share of the largest channel's.


class ActivationQuantizer(_tfmot.MovingAverageQuantizer):
    """Fake-quantizes an activation with one range.

    8 bits: asymmetric, the range holds 0. 16 bits: symmetric, max = m, min = -m*32768/32767 with
    m = max(|min|, |max|), so that the scale is m/32767 and the zero point 0.

    Args:
        num_bits: 8 or 16.
        ranges: "moving_average" (of the batches' minima and maxima), "learned" (trained by
            gradients, see `fake_quant.learned`; until calibration or the first batch has set it, a
            moving average) or "fixed" (as calibrated).
        nonnegative: The values come from a relu: the range's low end is 0.
        ceiling: Where that relu clips, or None; nothing sets the range's high end above this.
    """

    def __init__(
        self,
        num_bits: int = 8,
        ranges: str = "moving_average",
        nonnegative: bool = False,
        ceiling: float | None = None,
    ) -> None:
        super().__init__(num_bits, per_axis=False, symmetric=num_bits == 16, narrow_range=False)
        self.ranges = check_mode(ranges)
        self.nonnegative, self.ceiling = nonnegative, ceiling
        self.phase = Phase()

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Adds the range's ends to `layer`: `<name>_min` and `<name>_max`."""
        learned, most = self.ranges == "learned", self.ceiling or np.inf
        most = above_unset(most) if self.symmetric else most
        within = (LEAST_LEARNED, most) if learned else None
        high = add_end(layer, f"{name}_max", UNSET[1], within=within)
        if learned and self.symmetric:
            return {"min_var": Derived(lambda: _mirrored(high.numpy())), "max_var": high}
        within = (-np.inf, 0.0) if learned and not self.nonnegative else None
        return {"min_var": add_end(layer, f"{name}_min", UNSET[0], within=within), "max_var": high}

    def __call__(self, inputs: Any, training: Any, weights: dict, **kwargs: Any) -> Any:
        """Quantizes `inputs` (float32, any shape); moves the range where `training` is true."""
        del kwargs
        watcher = observe.active()
        if watcher is not None:
            watcher.activation(weights["min_var"], weights["max_var"], self.num_bits, inputs)
            return inputs
        if export_bits():
            return self._exported(inputs, weights)
        if self._follows(training, weights):
            least = constant(0.0)
            if not self.nonnegative:
                least = tf.minimum(fake_quant.smallest(inputs, len(inputs.shape)), least)
            low, high = self._follow(weights, least, _positive(inputs), training)
        else:
            low, high = self.bounds(weights)
        if not self.phase.quantizing:
            return inputs
        if self.ranges == "learned" and self.phase.moving:
            return fake_quant.learned(inputs, low, high, self.num_bits)
        return fake_quant.clipped(inputs, low, high, self.num_bits)

    def relu(self, inputs: Any, training: Any, weights: dict) -> Any:
        """Computes relu and quantization of `inputs` in one, which `fuses_relu` must allow.

        Args:
            inputs: What enters the relu.
            training: As in `__call__`.
            weights: The quantizer's variables.
        """
        if self._follows(training, weights):
            most = _positive(inputs, self.ceiling)
            _, high = self._follow(weights, constant(0.0), most, training)
        else:
            _, high = self.bounds(weights)
        learned = self.ranges == "learned" and self.phase.moving
        op = fake_quant.learned_relu if learned else fake_quant.clipped_relu
        return op(inputs, high, self.num_bits)

    def fuses_relu(self, weights: dict) -> bool:
        """True where the quantizer can compute its relu by the range: from 0 to the relu's end.

        Args:
            weights: The quantizer's variables.
        """
        if not self.nonnegative or self.symmetric or not self.phase.quantizing:
            return False
        if observe.active() is not None or export_bits():
            return False
        if self.ceiling is None:
            return True
        with tf.init_scope():  # Training keeps to the ceiling; what a user sets may not.
            return float(weights["max_var"].numpy()) <= self.ceiling

    def bounds(self, weights: dict) -> tuple[Any, Any]:
        """The range's (min, max) as tensors."""
        high = tf.convert_to_tensor(weights["max_var"])
        if self.symmetric:
            return -INT16_RATIO * high, high
        return constant(0.0) if self.nonnegative else tf.convert_to_tensor(weights["min_var"]), high

    def _exported(self, inputs: Any, weights: dict) -> Any:
        with tf.init_scope():
            low, high = (float(end) for end in self.bounds(weights))
        # Of an activation that was 0 throughout; the converter refuses an empty range.
        return fake_quant.plain(inputs, low, high if high > low else low + 1.0, self.num_bits)

    def _follows(self, training: Any, weights: dict) -> bool:
        """Whether the traced step sets or moves the range by what it sees."""
        if not (self.phase.moving and (tf.is_tensor(training) or training)):
            return False
        if self.ranges == "learned" and self.phase.quantizing:
            return self._is_unset(weights)
        return self.ranges != "fixed"

    @staticmethod
    def _is_unset(weights: dict) -> bool:
        """Whether the range is tfmot's first one, while a step is traced.

        A step that is traced with ranges set does not look again: that would double its small ops.
        """
        with tf.init_scope():
            ends = (weights["min_var"].numpy(), weights["max_var"].numpy())
        return (float(ends[0]), float(ends[1])) == UNSET

    def _follow(self, weights: dict, least: Any, most: Any, training: Any) -> tuple[Any, Any]:
        """Moves the range towards the batch's [least, most]; returns the new one."""
        low, high = self.bounds(weights)
        least, most = over_replicas(least, most)
        if isinstance(weights["min_var"], Derived):
            most = above_unset(most)
        if self.symmetric:
            most = tf.maximum(most, -least / INT16_RATIO)
        first = self._is_unset(weights)
        unset = tf.equal(high, UNSET[1]) if first else None
        if first and not isinstance(weights["min_var"], Derived):
            unset = tf.logical_and(unset, tf.equal(weights["min_var"], UNSET[0]))
        new_high = self._moved(high, most, unset, training)
        if self.symmetric:
            new_low = -INT16_RATIO * new_high
        elif self.nonnegative:
            new_low = constant(0.0)
        else:
            new_low = self._moved(low, least, unset, training)
        if first or not self.nonnegative or self.symmetric:
            set_range(weights["min_var"], weights["max_var"], new_low, new_high)
        else:
            weights["max_var"].assign(new_high, read_value=False)
        return new_low, new_high

    def _moved(self, old: Any, batch: Any, unset: Any, training: Any) -> Any:
        """The moving average of one end; `unset`: None, or whether `batch` shall replace it."""
        setting = self.ranges == "learned" and self.phase.quantizing
        share = constant(0.0 if setting else 1.0 - EMA_DECAY)
        if tf.is_tensor(training):
            share = share * tf.cast(training, tf.float32)
        moved = old + share * (batch - old)
        if unset is None:
            return moved
        if tf.is_tensor(training):
            unset = tf.logical_and(unset, tf.cast(training, tf.bool))
        return tf.where(unset, batch, moved)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "num_bits": self.num_bits,
            "ranges": self.ranges,
            "nonnegative": self.nonnegative,
            "ceiling": self.ceiling,
        }


def _mirrored(high: float) -> float:
    """The low end of a learned 16-bit range; tfmot's -6 where the range is not set."""
    return UNSET[0] if high == UNSET[1] else -INT16_RATIO * high


def _positive(values: Any, ceiling: float | None = None) -> Any:
    """The largest value, or 0; at most the ceiling."""
    most = fake_quant.largest(values, len(values.shape))
    if ceiling is None:
        return tf.nn.relu(most)
    return tf.raw_ops.ClipByValue(
        t=most, clip_value_min=constant(0.0), clip_value_max=constant(ceiling)
    )


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
        self.phase = Phase()

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Adds no variables."""
        return {}

    def __call__(self, inputs: Any, training: Any, weights: dict, **kwargs: Any) -> Any:
        """Quantizes `inputs`."""
        del training, weights, kwargs
        if observe.active() is not None:
            return inputs
        low, high = self.bounds({})
        if export_bits():
            return fake_quant.plain(inputs, low, high, self.num_bits)
        if self.final or not self.phase.quantizing:
            return inputs
        return fake_quant.clipped(inputs, low, high, self.num_bits)

    def fuses_relu(self, weights: dict) -> bool:
        """False: the function is not a relu."""
        del weights
        return False

    def bounds(self, weights: dict) -> tuple[float, float]:
        """The prescribed (min, max)."""
        del weights
        return FIXED_RANGES[16, ""] if self.num_bits == 16 else FIXED_RANGES[8, self.function]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"function": self.function, "num_bits": self.num_bits, "final": self.final}


class WeightQuantizer(_tfmot.LastValueQuantizer):
    """Fake-quantizes a kernel to symmetric integers: int8 in [-127, 127] or int4 in [-7, 7].

    Args:
        axis: Where the scales run: "channel" (last axis, one scale per output channel; kernels of
            rank 4), "depthwise" (the last two axes together, [h, w, c, m]), "unit" (last axis of a
            Dense kernel), "filter" (axis 2 of a Conv2DTranspose kernel) or "tensor" (one scale).
        num_bits: 4 or 8.
        ranges: "learned": the limits are trained (see `fake_quant.learned_kernel`). Else a limit
            is the largest magnitude that the kernel has at the time.
        preserve: "", "sparsity" or "clusters" (see `preserving`).

    Raises:
        InputError: Bits or a mode that do not exist.
    """

    def __init__(
        self,
        axis: str,
        num_bits: int = 8,
        ranges: str = "moving_average",
        preserve: str = "",
    ) -> None:
        if num_bits not in WEIGHT_BITS:
            raise InputError("weights can have 4 or 8 bits", str(num_bits))
        super().__init__(num_bits, per_axis=axis != "tensor", symmetric=True, narrow_range=True)
        self.axis, self.ranges = axis, check_mode(ranges)
        self.preserve = preserving.check_kind(preserve)
        self.phase = Phase()

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Adds what must be stored to the wrapper `layer`.

        `<name>_max` (scalar or [C]) where limits are learned, `<name>_clusters` (int32, the
        kernel's shape) where clusters are preserved.
        """
        made: dict[str, Any] = {}
        if self.ranges == "learned":
            axes = {"tensor": (), "depthwise": (-2, -1), "filter": (-2,)}.get(self.axis, (-1,))
            scales = (int(np.prod([tensor_shape[i] for i in axes])),) if axes else ()
            within = (LEAST_LEARNED, np.inf)
            made["max_var"] = add_end(layer, f"{name}_max", 1.0, scales, within)
        if self.preserve == "clusters":
            made["clusters"] = preserving.add_clusters(layer, name, tensor_shape)
        return made

    def with_ends(self, variables: dict[str, Any], kernel: Any) -> dict[str, Any]:
        """The variables, with both ends of the range as values that follow from the kernel.

        Args:
            variables: What `build` returned.
            kernel: The kernel's variable.
        """
        limit = variables.get("max_var")
        if limit is None:
            limit = Derived(lambda: self.largest(kernel))
        return {**variables, "min_var": Derived(lambda: -limit.numpy()), "max_var": limit}

    def __call__(self, inputs: Any, training: Any, weights: dict, **kwargs: Any) -> Any:
        """Quantizes the kernel `inputs`."""
        del training, kwargs
        if observe.active() is not None:
            return inputs
        if export_bits():
            kernel, limit = present_value(inputs), present_value(weights["max_var"])
            if self.preserve == "clusters":
                with tf.init_scope():
                    kernel = preserving.kept(self.preserve, kernel, weights).numpy()
            if self.axis in ("unit", "filter"):
                return by_codes(kernel, self._narrow, limit, self.num_bits)
            return self._narrow(tf.constant(kernel), limit)
        kernel = preserving.kept(self.preserve, tf.convert_to_tensor(inputs), weights)
        if not self.phase.quantizing:
            return kernel
        learned = self.ranges == "learned"
        grouped = self.grouped(kernel)
        limit = tf.convert_to_tensor(weights["max_var"]) if learned else self._most(grouped)
        if learned and self.phase.moving:
            out = fake_quant.learned_kernel(grouped, limit, self.num_bits)
            return self.ungrouped(out, kernel)
        rounded = fake_quant.narrow(grouped, limit, self.num_bits)
        return fake_quant.straight_through(kernel, self.ungrouped(rounded, kernel))

    def largest_code(self, kernel: Any, variables: dict[str, Any]) -> tuple[Any, Any]:
        """The kernel's largest magnitudes, a scalar or one an output channel, and their code.

        Args:
            kernel: The kernel's variable.
            variables: What `with_ends` returned.

        Returns:
            float32 and float64.
        """
        if self.ranges == "learned":
            limit = tf.convert_to_tensor(variables["max_var"])
        else:
            values = tf.convert_to_tensor(kernel)
            limit = self._limit(preserving.kept(self.preserve, values, variables))
        return limit, constant(2.0 ** (self.num_bits - 1) - 1.0, tf.float64)

    def grouped(self, kernel: Any) -> Any:
        """The kernel with its channels on the last axis."""
        if self.axis == "filter":
            return tf.transpose(kernel, (0, 1, 3, 2))
        if self.axis != "depthwise":
            return kernel
        h, w, c, m = kernel.shape
        return tf.reshape(kernel, (h, w, 1, c * m))

    def _narrow(self, kernel: Any, limit: Any) -> Any:
        """The kernel fake-quantized to [-limit, limit]."""
        return self.ungrouped(fake_quant.narrow(self.grouped(kernel), limit, self.num_bits), kernel)

    def ungrouped(self, values: Any, kernel: Any) -> Any:
        """What `grouped` made of a kernel, in the kernel's own shape.

        Args:
            values: Of the grouped kernel's shape.
            kernel: A tensor of the kernel's own shape.
        """
        if self.axis == "filter":
            return tf.transpose(values, (0, 1, 3, 2))
        return tf.reshape(values, kernel.shape) if self.axis == "depthwise" else values

    def largest(self, kernel: Any) -> Any:
        """The largest magnitude (per channel), never 0: a scale of 0 breaks the bias."""
        limit = self._limit(tf.convert_to_tensor(kernel))
        return tf.where(limit > 0.0, limit, 1.0)

    def _limit(self, kernel: Any) -> Any:
        """`largest`, but 0 for a kernel that is 0: fake quantization then gives 0."""
        return self._most(self.grouped(kernel))

    def _most(self, grouped: Any) -> Any:
        """`_limit` of a kernel with its channels last."""
        size = tf.abs(grouped)
        rank = len(size.shape)
        if self.axis == "tensor":
            return fake_quant.largest(size, rank)
        limit = fake_quant.largest(size, rank - 1)
        return tf.maximum(limit, constant(_LEAST_CHANNEL) * fake_quant.largest(limit, 1))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "axis": self.axis,
            "num_bits": self.num_bits,
            "ranges": self.ranges,
            "preserve": self.preserve,
        }
