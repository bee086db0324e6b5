"""Models whose layers cannot be read, as functions: subclassed ones, layers without config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfedge._keras import flavour, library, tf
from tfedge.bridge.loading import ServingModel
from tfedge.errors import ModelError
from tfedge.graph.trace import dtype_name, flatten, functional_of, input_names, output_names


class CalledModel(ServingModel):
    """A Keras model of either flavour that is only called, never read.

    Inputs and outputs of a subclassed model bear the keys of its dicts, else "input" and "output",
    numbered where there are several.

    Args:
        model: A built model. Keras 3 must run on TensorFlow.
        reason: Why its layers cannot be read.

    Raises:
        ModelError: It has not been called yet, or takes more than one argument.
    """

    def __init__(self, model: Any, reason: str) -> None:
        self.path, self.name, self.reason = Path(model.name), model.name, reason
        self._loaded = model
        self._structure, self.output_names = _ends(model)
        self.inputs = {spec.name: spec for spec in flatten(self._structure)}
        if not self.output_names:
            traced = tf.function(self._outputs, autograph=False)  # Sizes may be free.
            found = traced.get_concrete_function(self.inputs).structured_outputs
            self.output_names = _names("output", found)

    def _outputs(self, named: Mapping[str, Any]) -> Any:
        packed = tf.nest.pack_sequence_as(self._structure, [named[n] for n in self.inputs])
        return self._loaded(packed, training=False)

    def function(self, **named: Any) -> dict[str, Any]:
        """Runs the model on tensors by input name."""
        return dict(zip(self.output_names, flatten(self._outputs(named)), strict=True))


def _ends(model: Any) -> tuple[Any, list[str]]:
    """The model's input structure of named tf.TensorSpec, and its output names where known."""
    try:
        net = functional_of(model)
    except ModelError:
        return _structure_of_subclassed(model), []
    names = {id(t): n for n, t in zip(input_names(net), net.inputs, strict=True)}
    given = getattr(net, "_nested_inputs", None)
    given = getattr(net, "_inputs_struct", given)
    specs = tf.nest.map_structure(
        lambda t: tf.TensorSpec(tuple(t.shape), dtype_name(t), name=names[id(t)]), given
    )
    return specs, output_names(net)


def _structure_of_subclassed(model: Any) -> Any:
    if flavour(model) == "tf_keras":
        args, kwargs = model.save_spec() or ([], {})
        shapes = [spec for spec in (*args, *kwargs.values()) if spec is not None]
    else:
        shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
        kind = library("keras3").config.floatx()
        shapes = [_specs(given, kind) for given in shapes]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.call).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    if not shapes or len(shapes) > 1 or len(needed) > 1:
        raise ModelError(
            f"the inputs of '{model.name}' are not known",
            f"the arguments {', '.join(needed)}" if shapes else "it has never been called",
            "Call the model once on data; several inputs go into one list or dict",
        )
    names = iter(_names("input", shapes[0]))
    return tf.nest.map_structure(
        lambda s: tf.TensorSpec((None, *s.shape[1:]), s.dtype, name=next(names)), shapes[0]
    )


def _specs(shapes: Any, dtype: str) -> Any:
    """Nested shapes as nested tf.TensorSpec."""
    if isinstance(shapes, Mapping):
        return {key: _specs(value, dtype) for key, value in shapes.items()}
    if all(n is None or isinstance(n, int) for n in shapes):
        return tf.TensorSpec(tuple(shapes), dtype)
    return [_specs(value, dtype) for value in shapes]


def _names(word: str, structure: Any) -> list[str]:
    """A name for each part of a structure, in flat order."""
    count = len(flatten(structure))
    if isinstance(structure, Mapping) and len(structure) == count:
        return [str(key) for key in sorted(structure)]
    return [word] if count == 1 else [f"{word}_{i}" for i in range(count)]
