"""Rounding weights by what it does to a layer's output, not each to its nearest code.

Layers are taken in order of execution, in one pass over a batch of samples: each sees the inputs
that the layers before it give, rounded already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.quant import observe
from tfedge.quant.linear_view import LinearView, view_of
from tfedge.quant.quantizers import WeightQuantizer

_ROWS = 4096  # Output positions that are looked at, drawn once.
_STEPS, _BATCH, _RATE = 600, 512, 1e-2
_STRETCH, _PENALTY = (-0.1, 1.1), 0.01  # of the rectified sigmoid, and of undecided weights
_DAMPING = 0.01


def gptq(model: Any, samples: list[Any]) -> int:
    """GPTQ: rounds weight after weight, and lets those that are left make up for the error.

    Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", algorithm 1: with H = X^T X + damping over the layer's inputs and U the upper
    Cholesky factor of H^-1, row k is rounded to q, and (w - q) / U_kk * U_kj is taken off each
    later row j.

    Args:
        model: A quantize-aware model whose ranges are set; its kernels are changed.
        samples: One tensor an input, [N, ...], in the model's order; all in memory at once.

    Returns:
        How many layers were rounded; grouped, transposed and 3-D convolutions are left.
    """
    return _run(model, samples, lambda view, grid, x, y: _gptq_layer(view, grid, x), targets=False)


def adaround(model: Any, samples: list[Any], seed: int = 0) -> int:
    """AdaRound: learns for each weight whether to round it up or down.

    Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", equations 21
    to 24: min ||y - x W~||^2 + penalty * sum(1 - |2 h(V) - 1|^beta), W~ = s clip(floor(W / s) +
    h(V)), h a rectified sigmoid, beta falling from 20 to 2. y is what the float layer gives.

    Args:
        model: As in `gptq`.
        samples: As in `gptq`.
        seed: Of the order of rows.

    Returns:
        As `gptq`.
    """

    def layer(view: LinearView, grid: _Grid, x: Any, y: Any) -> np.ndarray:
        return _adaround_layer(view, grid, x, y, seed)

    return _run(model, samples, layer, targets=True)


@dataclass(frozen=True)
class _Grid:
    """What a kernel is rounded to.

    Attributes:
        weights: float64 [taps, channels].
        step: float64 [channels].
        top: The largest code.
        pinned: bool [taps, channels]: each channel's largest weight. It sets the channel's scale,
            so it keeps its code.
    """

    weights: np.ndarray
    step: np.ndarray
    top: int
    pinned: np.ndarray

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The nearest codes of values [taps, channels]."""
        return np.clip(np.round(values / self.step), -self.top, self.top)

    def column(self, channel: int) -> _Grid:
        """The grid of one channel."""
        own = slice(channel, channel + 1)
        return _Grid(self.weights[:, own], self.step[own], self.top, self.pinned[:, own])


Rounder = Callable[[LinearView, _Grid, Any, Any], np.ndarray]


def _run(model: Any, samples: list[Any], rounder: Rounder, targets: bool) -> int:
    packed = tf.nest.pack_sequence_as(model._nested_inputs, samples)
    wanted = _Targets()
    if targets:
        with observe.watching(observe.Silent()), observe.visiting(wanted):
            model(packed, training=False)
    rounding = _Rounding(rounder, wanted.values)
    with observe.visiting(rounding):
        model(packed, training=False)
    return len(rounding.done)


def _drawn(count: int) -> np.ndarray:
    """Numbers of the rows that are looked at, of so many."""
    if count <= _ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(count).choice(count, _ROWS, replace=False))


class _Targets:
    """Keeps what each layer gives in the float path, at the drawn positions."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}

    def reads(self, wrapper: Any, inputs: Any) -> None:
        """Nothing: the outputs are the targets."""

    def gives(self, wrapper: Any, values: Any) -> Any:
        """Keeps the first call's outputs, without the bias."""
        view = view_of(wrapper.layer)
        if view is not None and id(wrapper) not in self.values:
            rows = view.outputs(values)
            rows = tf.gather(rows, _drawn(rows.shape[0]))
            bias = wrapper.layer.bias
            self.values[id(wrapper)] = rows if bias is None else rows - bias
        return values


class _Rounding:
    """Rounds each layer's kernel when its inputs arrive, once."""

    def __init__(self, rounder: Rounder, targets: dict[int, Any]) -> None:
        self._rounder, self._targets = rounder, targets
        self.done: set[int] = set()

    def reads(self, wrapper: Any, inputs: Any) -> None:
        """Replaces the kernel by one whose weights are codes already."""
        view = view_of(wrapper.layer)
        if view is None or id(wrapper) in self.done or len(wrapper._weight_vars) != 1:
            return
        kernel, quantizer, variables = wrapper._weight_vars[0]
        rows = view.rows(inputs)
        rows = tf.gather(rows, _drawn(rows.shape[0]))
        rounded = self._rounder(
            view, _grid(view, quantizer, variables), rows, self._targets.get(id(wrapper))
        )
        kernel.assign(rounded.reshape(kernel.shape).astype(np.float32))
        self.done.add(id(wrapper))

    def gives(self, wrapper: Any, values: Any) -> Any:
        """Nothing to change."""
        return values


def _grid(view: LinearView, quantizer: WeightQuantizer, variables: dict[str, Any]) -> _Grid:
    top = 2 ** (quantizer.num_bits - 1) - 1
    weights = view.matrix(view.kernel.numpy()).astype(np.float64)
    limit = np.asarray(variables["max_var"], np.float64).reshape(-1)
    step = np.broadcast_to(limit, weights.shape[1:]) / top
    size = np.abs(weights)
    largest = size.max() if quantizer.axis == "tensor" else size.max(0)
    return _Grid(weights, step, top, size >= largest)


def _gptq_layer(view: LinearView, grid: _Grid, rows: Any) -> np.ndarray:
    x = rows.numpy().astype(np.float64)
    if not view.depthwise:
        return _gptq_matrix(grid, x)
    channels = range(grid.weights.shape[1])
    return np.concatenate([_gptq_matrix(grid.column(c), x[..., c]) for c in channels], axis=1)


def _gptq_matrix(grid: _Grid, x: np.ndarray) -> np.ndarray:
    """Rounds a kernel for inputs [positions, taps]; returns codes times steps."""
    hessian = x.T @ x
    damping = _DAMPING * float(np.mean(np.diag(hessian))) or 1.0
    inverse = np.linalg.inv(hessian + damping * np.eye(len(hessian)))
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left, done = grid.weights.copy(), np.empty_like(grid.weights)
    for k in range(len(left)):
        codes = np.where(grid.pinned[k], grid.codes(grid.weights)[k], grid.codes(left[k]))
        done[k] = codes * grid.step
        error = (left[k] - done[k]) / upper[k, k]
        left[k + 1 :] -= upper[k, k + 1 :, None] * error[None]
    return done


def _adaround_layer(view: LinearView, grid: _Grid, rows: Any, target: Any, seed: int) -> np.ndarray:
    exact = grid.weights / grid.step
    low = np.floor(exact)
    rest = np.clip(exact - low, 0.01, 0.99)
    inner = (rest - _STRETCH[0]) / (_STRETCH[1] - _STRETCH[0])
    decision = tf.Variable(np.log(inner / (1 - inner)).astype(np.float32))
    learn = _learner(view, grid, low.astype(np.float32), decision, target)
    draw = np.random.default_rng(seed)
    for i in range(_STEPS):
        done = i / _STEPS
        index = draw.integers(0, rows.shape[0], min(_BATCH, rows.shape[0]))
        beta = 2.0 + 18.0 * max(0.0, 1.0 - max(0.0, done - 0.2) / 0.8)
        part = tf.gather(rows, index), tf.gather(target, index)
        learn(*part, tf.constant(beta, tf.float32), tf.constant(float(done > 0.2)))
    codes = np.clip(low + (_up(decision).numpy() > 0.5), -grid.top, grid.top)
    return np.where(grid.pinned, grid.codes(grid.weights), codes) * grid.step


def _up(decision: Any) -> Any:
    """h(V) of equation 23: how far each weight is rounded up, 0 to 1."""
    low, high = _STRETCH
    return tf.clip_by_value(tf.sigmoid(decision) * (high - low) + low, 0.0, 1.0)


def _learner(view: LinearView, grid: _Grid, low: np.ndarray, decision: Any, target: Any) -> Any:
    """One step of the optimization: a function of rows, targets, beta and the penalty's share."""
    optimizer = keras.optimizers.Adam(_RATE)
    optimizer.build([decision])
    product = _per_channel if view.depthwise else tf.matmul
    scale = 1.0 / tf.maximum(tf.reduce_mean(tf.square(target)), 1e-12)
    step, top = grid.step.astype(np.float32), float(grid.top)

    @tf.function
    def learn(rows: Any, wanted: Any, beta: Any, share: Any) -> None:
        with tf.GradientTape() as tape:
            up = _up(decision)
            y = product(rows, tf.clip_by_value(low + up, -top, top) * step)
            loss = tf.reduce_mean(tf.square(wanted - y)) * scale
            undecided = tf.reduce_mean(1.0 - tf.abs(2.0 * up - 1.0) ** beta)
            loss += share * _PENALTY * undecided
        optimizer.apply_gradients([(tape.gradient(loss, decision), decision)])

    return learn


def _per_channel(rows: Any, values: Any) -> Any:
    """Products of a depthwise layer: [positions, taps, channels] with [taps, channels]."""
    return tf.reduce_sum(rows * values[None], axis=1)
