"""Recurrent layers written out over a known number of steps, with cells that are shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.graph.copying import copy_layer
from tfedge.graph.rewrite import Piece
from tfedge.quant.composite_shapes import merged_batch, parted_batch
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers
MOST_STEPS = 256
"""Steps that are written out at most: every one is some ten ops in the file."""


class _Cell:
    """One step of a cell on symbolic tensors; each of its layers is called at every step.

    So each has one range over all steps.
    """

    def __init__(self, s: Sketch, cell: Any, prefix: str) -> None:
        self.s, self.cell, self.prefix = s, cell, prefix
        self.units = int(getattr(cell, "units", None) or cell.filters)
        self._layers: dict[str, Any] = {}

    def shared(self, suffix: str, make: Callable[[str], Any], *inputs: Any) -> Any:
        """Calls the layer of this suffix, which is made at the first call."""
        if suffix not in self._layers:
            self._layers[suffix] = make(self.s.name(self.prefix + suffix))
        return self.s.add(self._layers[suffix], *inputs)

    def plus(self, suffix: str, x: Any, y: Any) -> Any:
        return self.shared(suffix, lambda n: _L.Add(name=n), x, y)

    def minus(self, suffix: str, x: Any, y: Any) -> Any:
        return self.shared(suffix, lambda n: _L.Subtract(name=n), x, y)

    def times(self, suffix: str, x: Any, y: Any) -> Any:
        return self.shared(suffix, lambda n: _L.Multiply(name=n), x, y)

    def activate(self, suffix: str, function: Any, x: Any) -> Any:
        return self.shared(suffix, lambda n: _L.Activation(function, name=n), x)

    def weights(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Kernel, recurrent kernel and bias of the cell."""
        bias = getattr(self.cell, "bias", None)
        return (
            np.asarray(self.cell.kernel),
            np.asarray(self.cell.recurrent_kernel),
            None if bias is None else np.asarray(bias),
        )

    def recurrent(self, suffix: str, h: Any, kernel: np.ndarray, bias: Any = None) -> Any:
        """What the state contributes: a Dense layer shared by all steps."""
        if suffix in self._layers:
            return self._layers[suffix](h)
        name = self.s.name(self.prefix + suffix)
        self._layers[suffix] = _L.Dense(kernel.shape[1], use_bias=bias is not None, name=name)
        weights = [kernel] if bias is None else [kernel, bias]
        return self.s.add(self._layers[suffix], h, weights=weights)

    def input_parts(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Kernel and bias of what the input contributes, for all steps at once."""
        kernel, _, bias = self.weights()
        return kernel, bias

    def inputs(self, x: Any) -> Any:
        """What the input contributes, [batch, steps, ..., gates * units]."""
        kernel, bias = self.input_parts()
        return self.s.dense(x, kernel, bias, f"{self.prefix}inputs")

    def part(self, z: Any, number: int, suffix: str) -> Any:
        """Gate `number` of [batch, ..., gates * units]."""
        cut = slice(number * self.units, (number + 1) * self.units)
        return self.s.cut(z, (*[slice(None)] * (len(z.shape) - 1), cut), self.prefix + suffix)

    def step(self, x: Any, states: list[Any]) -> list[Any]:
        """New states; the first is the output.

        Args:
            x: What the input contributes, [batch, gates * units].
            states: The states before, [batch, units]; None where they are 0.
        """
        raise NotImplementedError


class _Simple(_Cell):
    def step(self, x: Any, states: list[Any]) -> list[Any]:
        (h,) = states
        if h is not None:
            x = self.plus("sum", x, self.recurrent("recurrent", h, self.weights()[1]))
        return [self.activate("act", self.cell.activation, x)]


class _Lstm(_Cell):
    def step(self, x: Any, states: list[Any]) -> list[Any]:
        h, c = states
        if h is not None:
            x = self.plus("sum", x, self.recurrent("recurrent", h, self.weights()[1]))
        gate, act = self.cell.recurrent_activation, self.cell.activation
        i, f, o = (
            self.activate(f"gate_{n}", gate, self.part(x, k, f"part_{n}"))
            for k, n in ((0, "i"), (1, "f"), (3, "o"))
        )
        g = self.activate("candidate", act, self.part(x, 2, "part_c"))
        new = self.times("input", i, g)
        if c is not None:
            new = self.plus("state", self.times("kept", f, c), new)
        return [self.times("out", o, self.activate("act", act, new)), new]


class _ConvLstm(_Lstm):
    """An LSTM whose products are convolutions; [batch, rows, columns, units] for [batch, units]."""

    def inputs(self, x: Any) -> Any:
        cell, steps = self.cell, int(x.shape[1])
        kernel, bias = self.input_parts()
        conv = _L.Conv2D(
            kernel.shape[-1], kernel.shape[:2], strides=cell.strides, padding=cell.padding,
            dilation_rate=cell.dilation_rate, use_bias=bias is not None,
            name=self.s.name(f"{self.prefix}inputs"),
        )  # fmt: skip
        flat = merged_batch(self.s, x, f"{self.prefix}steps_in")
        y = self.s.add(conv, flat, weights=[kernel] if bias is None else [kernel, bias])
        return parted_batch(self.s, y, steps, f"{self.prefix}steps_out")

    def recurrent(self, suffix: str, h: Any, kernel: np.ndarray, bias: Any = None) -> Any:
        if suffix in self._layers:
            return self._layers[suffix](h)
        self._layers[suffix] = _L.Conv2D(
            kernel.shape[-1], kernel.shape[:2], padding="same", use_bias=False,
            name=self.s.name(self.prefix + suffix),
        )  # fmt: skip
        return self.s.add(self._layers[suffix], h, weights=[kernel])


class _Gru(_Cell):
    def input_parts(self) -> tuple[np.ndarray, np.ndarray | None]:
        kernel, bias = super().input_parts()
        return kernel, bias[0] if bias is not None and self.cell.reset_after else bias

    def step(self, x: Any, states: list[Any]) -> list[Any]:
        (h,) = states
        gate, act, n = self.cell.recurrent_activation, self.cell.activation, self.units
        _, kernel, bias = self.weights()
        if h is None:  # The recurrent bias counts at the first step too.
            h = self.s.affine(self.part(x, 0, "part_0"), 0.0, suffix=f"{self.prefix}zero")
        after = bool(self.cell.reset_after)
        two = slice(None) if after else slice(2 * n)
        row = bias[1] if after and bias is not None else None
        y = self.recurrent("recurrent", h, kernel[:, two], row)
        z, r = (
            self.activate(
                f"gate_{c}",
                gate,
                self.plus(f"sum_{c}", self.part(x, k, f"x_{c}"), self.part(y, k, f"h_{c}")),
            )
            for k, c in ((0, "z"), (1, "r"))
        )
        if after:
            reset = self.times("reset", r, self.part(y, 2, "h_c"))
        else:
            reset = self.recurrent("recurrent_c", self.times("reset", r, h), kernel[:, 2 * n :])
        new = self.activate("act", act, self.plus("sum_c", self.part(x, 2, "x_c"), reset))
        # z*h + (1 - z)*new with one product less.
        moved = self.times("moved", z, self.minus("change", h, new))
        return [self.plus("state", new, moved)]


_CELLS: dict[str, tuple[type[_Cell], int]] = {
    "SimpleRNNCell": (_Simple, 1),
    "LSTMCell": (_Lstm, 2),
    "GRUCell": (_Gru, 1),
    "ConvLSTMCell": (_ConvLstm, 2),
}


def recurrent(s: Sketch) -> list[Piece]:
    """LSTM, GRU, SimpleRNN, ConvLSTM2D and RNN over cells of these kinds."""
    layer, (x, *given) = s.layer, s.inputs
    _check(s, x)
    cells = list(getattr(layer.cell, "cells", [layer.cell]))
    if len(cells) > 1 and given:
        raise NoForm("its cells are stacked and get their first states from outside")
    rates = {float(getattr(c, "recurrent_dropout", 0.0) or 0.0) for c in cells} - {0.0}
    if rates:
        what = f"recurrent_dropout={max(rates)} is left out"
        s.caveat = f"{what}: no layer holds one mask over all steps"
    states: list[Any] = []
    for number, cell in enumerate(cells):
        last = number == len(cells) - 1
        steps, ends = _run(s, cell, x, given, f"{number}_" if len(cells) > 1 else "")
        states += ends
        if not last or layer.return_sequences:
            x = s.op(tf.stack, f"sequence_{number}", steps, axis=1)
        else:
            x = steps[-1]
    return s.piece([x, *states] if layer.return_state else x)


def _check(s: Sketch, x: Any) -> None:
    """Raises NoForm for what cannot be written out."""
    layer = s.layer
    if s.masked or s.call.kwargs.get("mask") is not None:
        raise NoForm("masks have no integer form")
    if layer.stateful or getattr(layer, "time_major", False):
        raise NoForm("it keeps its states between calls, or has time first")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise NoForm("channels_first is not what TFLite's kernels take; use channels_last")
    if x.shape[1] is None:
        raise NoForm("its number of steps is free; declare it")
    if int(x.shape[1]) > MOST_STEPS:
        raise NoForm(f"its {x.shape[1]} steps are more than the {MOST_STEPS} that are written out")
    for cell in getattr(layer.cell, "cells", [layer.cell]):
        if type(cell).__name__ not in _CELLS:
            raise NoForm(f"its cell {type(cell).__name__} has no integer form")


def _run(
    s: Sketch, cell: Any, x: Any, given: Sequence[Any], prefix: str
) -> tuple[list[Any], list[Any]]:
    """Outputs of all steps, and the last states."""
    kind, count = _CELLS[type(cell).__name__]
    written = kind(s, cell, prefix)
    if float(getattr(cell, "dropout", 0.0) or 0.0):
        x = s.add(_L.Dropout(cell.dropout, name=s.name(f"{prefix}dropout")), x)
    parts = written.inputs(x)
    states = list(given) if given else [None] * count
    outputs = []
    steps = range(int(x.shape[1]))
    first = cell is getattr(s.layer.cell, "cells", [cell])[0]  # later ones get them in that order
    for t in reversed(steps) if s.layer.go_backwards and first else steps:
        now = s.cut(parts, (slice(None), t), f"{prefix}step")
        states = written.step(now, states)
        outputs.append(states[0])
    return outputs, states


def bidirectional(s: Sketch) -> list[Piece]:
    """Bidirectional: its two layers, which are written out in their turn, and the merge."""
    layer, (x, *given) = s.layer, s.inputs
    forward, backward = layer.forward_layer, layer.backward_layer
    if given or s.masked or s.call.kwargs.get("mask") is not None:
        raise NoForm("masks and states from outside have no integer form here")
    if layer.return_state:
        raise NoForm("it returns its states")
    pair = []
    for suffix, inner in (("forward", forward), ("backward", backward)):
        new = copy_layer(inner, {"return_state": False}, s.name(suffix))
        pair.append(s.add(new, x, weights=inner.get_weights()))
    if forward.return_sequences:
        pair[1] = s.cut(pair[1], (slice(None), slice(None, None, -1)), "turned")
    mode = layer.merge_mode
    if mode is None:
        return s.piece(pair)
    merge = {"concat": _L.Concatenate, "sum": _L.Add, "ave": _L.Average, "mul": _L.Multiply}[mode]
    return s.piece(s.add(merge(name=s.name("merged")), *pair))


RECURRENT: dict[type, Any] = {
    _L.LSTM: recurrent,
    _L.GRU: recurrent,
    _L.SimpleRNN: recurrent,
    _L.RNN: recurrent,
    _L.ConvLSTM2D: recurrent,
    _L.Bidirectional: bidirectional,
}
