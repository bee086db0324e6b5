"""Small builders of real architectures, in both Kerases.

A builder takes a `Kit` (layers and operations of one flavour) and returns a model. They are written
the way their authors write them: with layers, with operations on tensors, or with both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.architectures import convolutional, corners, parts, sequences, vision
from tests.sessions import fresh
from tfedge._keras import library, tf


@dataclass(frozen=True)
class Kit:
    """One flavour: its layers `L`, `Input`, `Model`, and operations under keras.ops names."""

    flavour: str
    L: Any
    ops: Any
    Input: Callable
    Model: Callable
    Sequential: Callable
    dtype: str = "float32"


def _tf_ops() -> Any:
    """TensorFlow functions under the names that keras.ops gives them."""
    return SimpleNamespace(
        reshape=tf.reshape,
        transpose=lambda x, axes: tf.transpose(x, axes),
        concatenate=lambda xs, axis=-1: tf.concat(xs, axis),
        split=lambda x, parts, axis: tf.split(x, parts, axis=axis),
        stack=lambda xs, axis: tf.stack(xs, axis),
        matmul=tf.matmul,
        einsum=tf.einsum,
        softmax=lambda x, axis=-1: tf.nn.softmax(x, axis),
        mean=lambda x, axis, keepdims=False: tf.reduce_mean(x, axis, keepdims),
        max=lambda x, axis, keepdims=False: tf.reduce_max(x, axis, keepdims),
        sum=lambda x, axis, keepdims=False: tf.reduce_sum(x, axis, keepdims),
        var=lambda x, axis, keepdims=False: tf.math.reduce_variance(x, axis, keepdims),
        abs=tf.abs,
        exp=tf.exp,
        sqrt=tf.sqrt,
        tanh=tf.tanh,
        sigmoid=tf.sigmoid,
        relu=tf.nn.relu,
        gelu=tf.nn.gelu,
        multiply=tf.multiply,
        add=tf.add,
        maximum=tf.maximum,
        where=tf.where,
        expand_dims=tf.expand_dims,
        squeeze=tf.squeeze,
        tile=tf.tile,
        repeat=lambda x, n, axis: tf.repeat(x, n, axis),
        flip=lambda x, axis: tf.reverse(x, [axis]),
        roll=lambda x, shift, axis: tf.roll(x, shift, axis),
        take=lambda x, indices, axis: tf.gather(x, indices, axis=axis),
        pad=lambda x, widths: tf.pad(x, widths),
        broadcast_to=tf.broadcast_to,
        cumsum=lambda x, axis: tf.cumsum(x, axis),
        resize=lambda x, size: tf.image.resize(x, size),
        depth_to_space=tf.nn.depth_to_space,
        space_to_depth=tf.nn.space_to_depth,
        normalize=lambda x, axis: tf.math.l2_normalize(x, axis),
        cast=lambda x, dtype: tf.cast(x, dtype),
    )


def _keras_ops() -> Any:
    ops = library("keras3").ops
    names = [n for n in dir(ops) if not n.startswith("_")]
    own = {n: getattr(ops, n) for n in names}
    # Keras splits at indices where a list is given, TensorFlow by sizes: here, by sizes.
    own["split"] = lambda x, parts, axis: ops.split(
        x, parts if isinstance(parts, int) else np.cumsum(parts)[:-1].tolist(), axis=axis
    )
    own["resize"] = lambda x, size: ops.image.resize(x, size)
    own["depth_to_space"] = ops.nn.depth_to_space
    own["space_to_depth"] = ops.nn.space_to_depth
    return SimpleNamespace(**own)


def kit(flavour: str) -> Kit:
    """The kit of a flavour."""
    lib = library(flavour)
    ops = _keras_ops() if flavour == "keras3" else _tf_ops()
    return Kit(flavour, lib.layers, ops, lib.Input, lib.Model, lib.Sequential)


ONLY = {
    "keras3": ["grouped_query", "llama_like", "adaptive_pools", "spectral"],
    "tf_keras": ["locally_connected", "blur_pool", "dynamic_shapes"],
}
_BUILDERS = {
    name: function
    for module in (convolutional, vision, sequences, parts, corners)
    for name, function in vars(module).items()
    if getattr(function, "__module__", "") == module.__name__ and not name.startswith("_")
}
SHARED = [n for n in _BUILDERS if n not in ONLY["keras3"] + ONLY["tf_keras"]]
CASES = [(f, n) for f in ("tf_keras", "keras3") for n in (*SHARED, *ONLY[f])]


def build(flavour: str, name: str, seed: int = 0):
    """A model with random weights."""
    fresh(library(flavour))
    return randomize(_BUILDERS[name](kit(flavour)), seed)


def randomize(model, seed: int = 0):
    """Random weights of a size that keeps activations alive; variances and scales positive."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        name = getattr(w, "path", w.name)
        dtype = w.dtype if isinstance(w.dtype, str) else w.dtype.name
        if not dtype.startswith("float") or name.split("/")[-1].split(":")[0] in _STATE:
            continue
        fan = int(np.prod(w.shape[:-1])) or 1
        value = rng.normal(0, 1.2 / np.sqrt(min(fan, 64)), w.shape)
        if any(n in name for n in ("variance", "gamma", "scale")):
            value = np.abs(value) + 0.5
        w.assign(value)
    return model


_STATE = ("mean", "variance", "count")  # what Normalization adapted


def inputs_for(model, batch: int = 3, seed: int = 1) -> list[np.ndarray]:
    """Random inputs in the order of the model's inputs; free sizes are 8."""
    rng = np.random.default_rng(seed)
    out = []
    for t in model.inputs:
        shape = (batch, *(d or 8 for d in t.shape[1:]))
        dtype = t.dtype if isinstance(t.dtype, str) else t.dtype.name
        whole = rng.integers(0, 10, shape).astype("int32")
        out.append(whole if dtype == "int32" else rng.normal(size=shape).astype("float32"))
    return out
