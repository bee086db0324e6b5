"""Calibration without data: inputs made up so that they look to the network like its training set.

Cai et al. 2020, "ZeroQ: A Novel Zero Shot Quantization Framework", 3.1: a batch norm remembers mean
and variance of what it saw in training. Inputs are trained, from noise, until theirs agree:

    sum over batch norms of |mean - mu|^2 / (var + eps) + |std - sigma|^2 / (var + eps),

averaged over channels. A batch norm does not tell apart what differs within a sample and between
samples, though pooling layers do; so the noise is that of natural images, of equal power in every
octave down to the sample's own mean, where the paper starts from white noise.

Such inputs set ranges and correct biases; they are no pictures of anything,
and accuracy must not be measured on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.bridge import to_float32
from tfedge.bridge.precision import float32_policy
from tfedge.errors import InputError, ModelError
from tfedge.graph.execute import call_on
from tfedge.graph.trace import Call, Graph, trace

_BATCH = 32
_RATE = 0.05  # of the inputs' spread, a step


@float32_policy()
def synthesize(
    model: Any,
    count: int = 64,
    *,
    bounds: tuple[float, float] | None = None,
    steps: int = 200,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Makes up calibration data from a model's batch norms.

    Args:
        model: A float Keras model with batch norms that have been trained, not folded.
        count: Number of samples, made in batches of 32.
        bounds: Smallest and largest value of the inputs, where they are known ((0, 255) for raw
            pixels); they start in the middle with a quarter of the width as deviation. None: they
            start as a standard normal distribution and go where they like.
        steps: Steps of Adam for each batch.
        seed: Of the first noise.

    Returns:
        float32 [count, ...] by input name, as `calibration` takes it.

    Raises:
        InputError: Arguments that make no sense.
        ModelError: No batch norm, inputs that are not float, or free axes.
    """
    for name, number in (("count", count), ("steps", steps)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{name} must be a whole number of at least 1", repr(number))
    if bounds is not None and not bounds[0] < bounds[1]:
        raise InputError("bounds must be (smallest, largest)", repr(bounds))
    model = to_float32(model)
    graph = trace(model)
    norms = [c for c in graph.calls if isinstance(c.layer, keras.layers.BatchNormalization)]
    _check(graph, norms)
    middle, spread = (0.0, 1.0) if bounds is None else (sum(bounds) / 2, np.ptp(bounds) / 4)
    random = np.random.default_rng(seed)
    batches: list[list[np.ndarray]] = []
    train = _trainer(graph, norms, bounds, float(_RATE * spread))
    for start in range(0, count, _BATCH):
        # A lone sample has no statistics over samples: whole batches, cut at the end.
        shapes = [(_BATCH, *graph.tensors[i].shape[1:]) for i in graph.inputs]
        noise = [middle + spread * octaves(random, s) for s in shapes]
        found = train([n if bounds is None else np.clip(n, *bounds) for n in noise], steps)
        batches.append([v[: min(_BATCH, count - start)] for v in found])
    arrays = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return dict(zip(graph.input_names, arrays, strict=True))


def octaves(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of equal power at every scale from single values to the whole sample, deviation 1.

    Args:
        random: Source.
        shape: [N, ..., C]; all axes between are scaled.
    """
    inner = shape[1:-1]
    parts, size = [], 1
    while True:
        grid = tuple(min(size, n) for n in inner)
        coarse = random.standard_normal((shape[0], *grid, shape[-1]))
        for axis, (have, want) in enumerate(zip(grid, inner, strict=True), 1):
            coarse = np.take(coarse, np.arange(want) * have // want, axis)
        parts.append(coarse)
        if grid == tuple(inner):
            return (sum(parts) / np.sqrt(len(parts))).astype(np.float32)
        size *= 2


def _check(graph: Graph, norms: list[Call]) -> None:
    if not norms:
        raise ModelError(
            "data cannot be made up for a model without batch norm", f"'{graph.name}'",
            "Give calibration data; 32 typical inputs are far better than none",
        )  # fmt: skip
    for name, number in zip(graph.input_names, graph.inputs, strict=True):
        tensor = graph.tensors[number]
        if not tensor.dtype.startswith("float") or None in tensor.shape[1:]:
            raise ModelError(
                f"data cannot be made up for input '{name}'",
                f"{tensor.dtype} of shape {tensor.shape}",
                "Only float inputs without free axes can; give calibration data",
            )


def _trainer(
    graph: Graph, norms: list[Call], bounds: tuple[float, float] | None, rate: float
) -> Any:
    """A function that trains one batch of inputs."""
    last = max(i for i, call in enumerate(graph.calls) if call in norms)
    shapes = [(_BATCH, *graph.tensors[i].shape[1:]) for i in graph.inputs]
    variables = [tf.Variable(tf.zeros(s)) for s in shapes]
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            values: dict[int, Any] = dict(zip(graph.inputs, variables, strict=True))
            loss = tf.constant(0.0)
            for call in graph.calls[: last + 1]:
                if isinstance(call.layer, keras.layers.BatchNormalization):
                    loss += _distance(call.layer, values[call.inputs[0]])
                values.update(zip(call.outputs, call_on(call, values), strict=True))
        gradients = tape.gradient(loss, variables)
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        optimizer.apply_gradients(pairs)
        if bounds is not None:
            for variable in variables:
                variable.assign(tf.clip_by_value(variable, *bounds))
        return loss

    def train(noise: list[np.ndarray], steps: int) -> list[np.ndarray]:
        for variable, values in zip(variables, noise, strict=True):
            variable.assign(values)
        for variable in optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        optimizer.learning_rate.assign(rate)
        for _ in range(steps):
            step()
        return [v.numpy() for v in variables]

    return train


def _distance(layer: Any, values: Any) -> Any:
    """How far the statistics of what a batch norm reads are from those it remembers."""
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    others = [a for a in range(len(values.shape)) if a != axis % len(values.shape)]
    mean, variance = tf.nn.moments(values, others)
    scale = layer.moving_variance + layer.epsilon
    means = tf.square(mean - layer.moving_mean) / scale
    spreads = tf.square(tf.sqrt(variance + layer.epsilon) - tf.sqrt(scale)) / scale
    return tf.reduce_mean(means + spreads)
