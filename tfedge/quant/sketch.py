"""Writing one layer as a small model of simpler ones, whose layers then stand in its place."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.bridge.operations import op_layer
from tfedge.graph.rewrite import Piece, Rewriter
from tfedge.graph.trace import Call
from tfedge.quant.tables import AboveZero, Tabled

_L = keras.layers


class NoForm(Exception):
    """A layer cannot be written in simpler ones; the message is the reason."""


class Sketch:
    """A functional model in the making, in place of one call.

    Args:
        site: The rewriter of the graph.
        call: The call that is written out.
        bits: Activation bits that are asked for.
        divisor: Smallest and largest value of what the call divides by, where they are known.

    Attributes:
        inputs: The symbolic tensors that stand for the call's.
        trainable: Whether the layer trains.
        caveat: What the simpler layers do otherwise in training, and why; a form may set it.
    """

    def __init__(
        self,
        site: Rewriter,
        call: Call,
        bits: int,
        divisor: tuple[float, float] | None = None,
    ) -> None:
        self.site, self.call, self.bits, self.divisor = site, call, bits, divisor
        self.layer = call.layer
        self.trainable = bool(getattr(call.layer, "trainable", True))
        specs = [site.graph.tensors[i] for i in call.inputs]
        self.inputs = [
            keras.Input(batch_shape=t.shape, dtype=t.dtype, name=self.name(f"in{n}"))
            for n, t in enumerate(specs)
        ]
        self.caveat = ""
        self.masked = any(t.masked for t in specs)

    def name(self, suffix: str) -> str:
        """A name that is not taken, for a layer inside."""
        return self.site.name(self.call.name, suffix)

    def add(self, layer: Any, *inputs: Any, weights: Sequence[Any] | None = None) -> Any:
        """Calls a new layer on tensors (several: as a list); sets its weights."""
        layer.trainable = layer.trainable and self.trainable
        result = layer(inputs[0] if len(inputs) == 1 else list(inputs))
        if weights is not None:
            layer.set_weights([np.asarray(w, np.float32) for w in weights])
        return result

    def op(self, function: Any, suffix: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a TensorFlow function on tensors, as a layer."""
        return op_layer(function, self.name(suffix))(*args, **kwargs)

    def piece(self, outputs: Any) -> list[Piece]:
        """The chain that puts the model in the call's place."""
        model = keras.Model(self.inputs, outputs, name=self.name("form"))
        takes = "tensor" if len(self.inputs) == 1 else "list"
        return [Piece(model, None, self.call.name, takes)]

    # Arithmetic -----------------------------------------------------------------------------

    def plus(self, x: Any, y: Any, suffix: str = "sum") -> Any:
        """The sum of two tensors; by a difference where the int16 ADD would have to broadcast."""
        if self.bits != 16 or tuple(x.shape[1:]) == tuple(y.shape[1:]):
            return self.add(_L.Add(name=self.name(suffix)), x, y)
        large, small = (x, y) if _covers(x, y) else (y, x)
        return self.minus(large, self.affine(small, -1.0, suffix="negative"), suffix)

    def minus(self, x: Any, y: Any, suffix: str = "minus") -> Any:
        """X - y of two tensors."""
        return self.add(_L.Subtract(name=self.name(suffix)), x, y)

    def times(self, x: Any, y: Any, suffix: str = "product") -> Any:
        """X * y of two tensors (of broadcasting shapes)."""
        return self.add(_L.Multiply(name=self.name(suffix)), x, y)

    def affine(self, x: Any, scale: float, offset: float = 0.0, suffix: str = "affine") -> Any:
        """scale*x + offset with two numbers."""
        return self.add(_L.Rescaling(float(scale), float(offset), name=self.name(suffix)), x)

    def mean(self, x: Any, axes: Sequence[int], suffix: str = "mean") -> Any:
        """Mean over axes, which stay with size 1."""
        return self.op(tf.math.reduce_mean, suffix, x, axis=list(axes), keepdims=True)

    def relu(self, x: Any, suffix: str = "relu") -> Any:
        """max(x, 0)."""
        return self.add(_L.ReLU(name=self.name(suffix)), x)

    def at_most(self, x: Any, number: float, suffix: str = "capped") -> Any:
        """min(x, number)."""
        return self.op(tf.math.minimum, suffix, x, float(number))

    def at_least(self, x: Any, number: float, suffix: str = "raised") -> Any:
        """max(x, number)."""
        return self.op(tf.math.maximum, suffix, x, float(number))

    def tabled(self, function: str, x: Any, suffix: str = "") -> Any:
        """The function exp or log, by name."""
        return self.add(Tabled(function, name=self.name(suffix or function)), x)

    def rsqrt(self, x: Any) -> Any:
        """1 / sqrt(x) of values >= 0."""
        return self.tabled("rsqrt", self.add(AboveZero(name=self.name("above_0")), x))

    def function(self, name: Any, x: Any, suffix: str) -> Any:
        """An activation function, by name."""
        return self.add(_L.Activation(name, name=self.name(suffix)), x)

    # Shapes ---------------------------------------------------------------------------------

    def reshape(self, x: Any, shape: Sequence[int | None], suffix: str = "shape") -> Any:
        """Another shape behind the batch; None where free."""
        target = tuple(-1 if d is None else int(d) for d in shape)
        if tuple(x.shape[1:]) == tuple(shape):
            return x
        if target.count(-1) > 1:
            raise NoForm(f"its input has {target.count(-1)} free axes; declare all but one")
        return self.add(_L.Reshape(target, name=self.name(suffix)), x)

    def permute(self, x: Any, order: Sequence[int], suffix: str = "permuted") -> Any:
        """Other order of axes; `order` holds all of them, the batch as 0 first."""
        if list(order) == list(range(len(order))):
            return x
        return self.add(_L.Permute(tuple(order[1:]), name=self.name(suffix)), x)

    def cut(self, x: Any, parts: Sequence[Any], suffix: str) -> Any:
        """Slices and indices of the first axes; slices as dicts, which a file can hold."""
        written = [
            {"start": p.start, "stop": p.stop, "step": p.step} if isinstance(p, slice) else p
            for p in parts
        ]
        return self.op(tf.__operators__.getitem, suffix, x, written)

    def matmul(self, x: Any, y: Any, suffix: str, transpose_b: bool = False) -> Any:
        """Product of the last two axes."""
        return self.op(tf.linalg.matmul, suffix, x, y, transpose_b=transpose_b)

    def dense(
        self, x: Any, kernel: np.ndarray, bias: np.ndarray | None, suffix: str, **config: Any
    ) -> Any:
        """A Dense layer on the last axis with these weights (kernel [in, units])."""
        layer = _L.Dense(
            kernel.shape[1], use_bias=bias is not None, name=self.name(suffix), **config
        )
        return self.add(layer, x, weights=[kernel] if bias is None else [kernel, bias])

    def per_channel(
        self, x: Any, gain: Any, offset: Any, suffix: str = "affine", trainable: bool = True
    ) -> Any:
        """Gain * x + offset by channel (the last axis): a 1x1 depthwise convolution.

        Per channel its kernel has one weight, which 8 bits represent exactly.
        """
        shape = tuple(x.shape[1:])
        flat = x if len(shape) == 3 else self.reshape(x, (1, _size(shape[:-1]), shape[-1]))
        layer = _L.DepthwiseConv2D(
            1, use_bias=offset is not None, name=self.name(suffix), trainable=trainable
        )
        kernel = np.reshape(np.asarray(gain, np.float32), (1, 1, -1, 1))
        y = self.add(layer, flat, weights=[kernel] if offset is None else [kernel, offset])
        return self.reshape(y, shape)

    def known(self, x: Any) -> tuple[int, ...]:
        """Sizes behind the batch.

        Raises:
            NoForm: One is free.
        """
        if None in x.shape[1:]:
            raise NoForm("its input has an axis of free size; declare it")
        return tuple(int(d) for d in x.shape[1:])


def _covers(x: Any, y: Any) -> bool:
    """Whether no axis of `x` is repeated when the two meet."""
    return all(a == b or b == 1 for a, b in zip(x.shape[1:], y.shape[1:], strict=True))


def _size(shape: Sequence[int | None]) -> int | None:
    return None if None in shape else prod(int(d or 1) for d in shape)
