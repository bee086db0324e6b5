"""Reference values of a Keras model: its outputs by name, and what each of its layers gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.bridge import ServingModel
from tfedge.graph.trace import functional_of
from tfedge.quantized import layer_name


def outputs_of(
    model: Any, inputs: Mapping[str, np.ndarray], names: Sequence[str], batch: int = 64
) -> dict[str, np.ndarray]:
    """Runs a model in inference mode.

    Args:
        model: A tf_keras functional or sequential model, or a `bridge.ServingModel`.
        inputs: Arrays [samples, ...] by input name.
        names: Names for the flattened outputs, in order.
        batch: Samples at a time.

    Returns:
        Arrays [samples, ...] by name.
    """
    if isinstance(model, ServingModel):

        def run(part: dict[str, Any]) -> list[Any]:
            result = model(part)
            return [result[n] for n in names]
    else:
        net = functional_of(model)

        def run(part: dict[str, Any]) -> list[Any]:
            flat = [part[n] for n in net.input_names]
            return tf.nest.flatten(
                net(tf.nest.pack_sequence_as(net._nested_inputs, flat), training=False)
            )

    return dict(zip(names, _in_batches(run, inputs, batch), strict=True))


def layers_of(
    model: Any, inputs: Mapping[str, np.ndarray], batch: int = 8
) -> dict[str, np.ndarray]:
    """What each layer gives for these inputs, by layer name, in topological order.

    Layers called more than once, with several outputs or with outputs that are not floating point
    are left out; a `ServingModel` has none. Wrapped layers of quantize-aware models appear under
    their own name. Layers of nested models are left out.

    Args:
        model: A tf_keras functional or sequential model.
        inputs: Arrays [samples, ...] by input name.
        batch: Samples at a time.
    """
    if isinstance(model, ServingModel):
        return {}
    net = functional_of(model)
    found: dict[str, Any] = {}
    for depth in sorted(net._nodes_by_depth, reverse=True):
        for node in net._nodes_by_depth[depth]:
            layer, out = node.layer, node.outputs
            single = hasattr(out, "dtype") and out.dtype.is_floating
            if node.is_input or not single or hasattr(layer, "layers"):
                continue
            name = layer_name(layer)
            found[name] = None if name in found else out
    wanted = {name: t for name, t in found.items() if t is not None}
    if not wanted:
        return {}
    probe = keras.Model(net.inputs, list(wanted.values()))

    def run(part: dict[str, Any]) -> list[Any]:
        return tf.nest.flatten(probe([part[n] for n in net.input_names], training=False))

    return dict(zip(wanted, _in_batches(run, inputs, batch), strict=True))


def _in_batches(run: Any, inputs: Mapping[str, np.ndarray], batch: int) -> list[np.ndarray]:
    """Runs in batches and joins the flat results."""
    count = len(next(iter(inputs.values())))
    function = tf.function(run, reduce_retracing=True)
    parts: list[list[np.ndarray]] = []
    for start in range(0, count, batch):
        part = {k: tf.constant(v[start : start + batch]) for k, v in inputs.items()}
        parts.append([t.numpy() for t in function(part)])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
