"""Models with inputs of free size, given sizes: TFLite's files have static shapes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tfedge._keras import tf
from tfedge.bridge.loading import ServingModel, load_model
from tfedge.errors import InputError, ModelError, did_you_mean
from tfedge.graph import rebuild, trace
from tfedge.quantized import is_quantized

Shapes = Mapping[str, Sequence[int]]


def with_shapes(model: Any, shapes: Shapes) -> Any:
    """The model for inputs of these sizes.

    Args:
        model: A float Functional or Sequential model of either Keras, or a ServingModel.
        shapes: Size of each axis but the batch, by input name: {"image": (320, 320, 3)}. Inputs
            that are left out stay as they are.

    Returns:
        A new model with the same layers, names and weights; the model itself where no size is
        given that it has not already.

    Raises:
        InputError: An unknown input, another number of axes, or a size that contradicts the
            model's own.
        ModelError: The model cannot be rebuilt, or not for this size.
    """
    model = load_model(model)
    if isinstance(model, ServingModel):
        return _serving(model, shapes)
    graph = trace(model)
    numbers = dict(zip(graph.input_names, graph.inputs, strict=True))
    declared = {name: graph.tensors[number].shape for name, number in numbers.items()}
    fixed = _fixed(declared, shapes)
    if all(fixed[n] == tuple(declared[n]) for n in fixed):
        return model
    if is_quantized(model):
        raise ModelError(
            "a quantize-aware model keeps its shapes", f"'{model.name}'",
            "Give the sizes first: quantize_aware(tfedge.bridge.with_shapes(model, shapes), ...)",
        )  # fmt: skip
    tensors = list(graph.tensors)
    for name, shape in fixed.items():
        tensors[numbers[name]] = replace(tensors[numbers[name]], shape=shape)
    try:
        return rebuild(replace(graph, tensors=tensors))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(
            f"the model cannot be built for inputs of {_said(shapes)}",
            str(error).strip().splitlines()[0],
        ) from error


def _serving(model: ServingModel, shapes: Shapes) -> ServingModel:
    declared = {n: tuple(spec.shape) for n, spec in model.inputs.items()}
    made = copy.copy(model)
    made.inputs = dict(model.inputs)
    for name, shape in _fixed(declared, shapes).items():
        made.inputs[name] = tf.TensorSpec(shape, model.inputs[name].dtype, name=name)
    return made


def _fixed(declared: Mapping[str, Sequence[int | None]], shapes: Shapes) -> dict[str, tuple]:
    """Full shapes, the batch first, of the inputs that are given sizes."""
    fixed = {}
    for name, sizes in shapes.items():
        if name not in declared:
            raise InputError("no such input", f"'{name}'", did_you_mean(name, declared))
        own = tuple(declared[name])
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
        fits = whole and len(sizes) == len(own) - 1
        if not fits or any(d not in (None, n) for d, n in zip(own[1:], sizes, strict=True)):
            raise InputError(
                f"these sizes do not fit input '{name}'", f"{tuple(sizes)} for {own[1:]}",
                "Give one whole number for each axis but the batch",
            )  # fmt: skip
        fixed[name] = (own[0], *sizes)
    return fixed


def _said(shapes: Shapes) -> str:
    return ", ".join(f"{name} {tuple(sizes)}" for name, sizes in shapes.items())
