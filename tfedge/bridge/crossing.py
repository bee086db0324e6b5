"""A whole model from one Keras into the other, by replaying its graph."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfedge._keras import flavour, keras, keras3
from tfedge.bridge.arguments import is_symbolic
from tfedge.bridge.carried import (
    Keras3Layer,
    KerasOp,
    PassMask,
    make_operation,
    remember,
    require_tensorflow,
    template,
)  # fmt: skip
from tfedge.bridge.layers import (
    NoCounterpart,
    Target,
    class_flavour,
    convert_layer,
    is_native,
    is_tf_op,
    serialized_keras3,
)  # fmt: skip
from tfedge.bridge.loading import load_model
from tfedge.bridge.operations import to_tensorflow
from tfedge.bridge.reverse_operations import to_keras_ops
from tfedge.bridge.weights import copy_weights
from tfedge.errors import ModelError
from tfedge.graph.model_class import overridden, own_class
from tfedge.graph.trace import Call, Graph, flatten, replay, trace


def to_tf_keras(
    model: Any, custom_objects: Mapping[str, Any] | None = None, *, keep_class: bool = True
) -> Any:
    """A Keras 3 model as a tf_keras model with the same layer names and weights.

    Nested models are written out (of two equal names the second becomes "<model>_<layer>"), a
    Sequential model comes as a Functional one, `keras.ops` calls become TensorFlow op layers. A
    name that TensorFlow forbids ("_x", "a b") is changed ("layer_x", "a_b"). Layers that only
    Keras 3 has, and the user's own, are carried along and run Keras 3's code
    (`carried.Keras3Layer`). The optimizer's state and the compilation are not carried: compile the
    result.

    Args:
        model: A Keras 3 Functional or Sequential model, or the path of its file (a tf_keras model
            is returned as it is).
        custom_objects: tf_keras classes and functions for the user's own layers, functions and
            model class, by the name that they have in Keras 3. Layers without one are carried
            along; in another process, load the result with their Keras 3 classes.
        keep_class: A model class with its own `train_step` needs its tf_keras counterpart in
            custom_objects; False gives a plain Functional model where it is not there, enough for
            inference and conversion.

    Returns:
        The tf_keras model; each layer's output on the same input is equal within 1e-5.

    Raises:
        ModelError: A layer that has no counterpart; the message names it and what to supply.
    """
    model = load_model(model, custom_objects)
    if flavour(model) == "tf_keras":
        return model
    return _cross(model, "tf_keras", custom_objects, keep_class)


def to_keras3(
    model: Any, custom_objects: Mapping[str, Any] | None = None, *, keep_class: bool = True
) -> Any:
    """A tf_keras model as a Keras 3 model with the same layer names and weights.

    Slashes in names, which Keras 3 forbids, become underscores. Otherwise as `to_tf_keras`.

    Args:
        model: A tf_keras Functional or Sequential model, or the path of its file (a Keras 3 model
            is returned as it is).
        custom_objects: Keras 3 classes and functions for the user's own layers, functions and model
            class, by the name that they have in tf_keras.
        keep_class: As for `to_tf_keras`.

    Raises:
        ModelError: A layer or TensorFlow function that has no counterpart, or a quantize-aware
            model.
    """
    model = load_model(model, custom_objects)
    if flavour(model) == "keras3":
        return model
    return _cross(model, "keras3", custom_objects, keep_class)


def _cross(model: Any, to: str, custom: Mapping[str, Any] | None, keep_class: bool) -> Any:
    if flavour(model) is None:
        raise ModelError("this is not a Keras model", type(model).__name__)
    custom = dict(custom or {})
    target = Target(to, custom, lambda inner: _cross(inner, to, custom, keep_class=False))
    graph = trace(model)
    graph.name = legal_name(graph.name, to)
    graph.input_names = [legal_name(n, to) for n in graph.input_names]
    kind = _model_class(model, target, keep_class)
    crossing = _Crossing(graph, target)
    crossed = replay(graph, crossing.make, crossing.note, into=to, model_class=kind)
    crossing.copy_weights()
    return crossed


def legal_name(name: str, to: str) -> str:
    """A name that the other Keras allows: it differs only where the old one is forbidden there."""
    if to == "keras3":
        return name.replace("/", "_")
    name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)  # TensorFlow's name scopes
    return name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"


def _model_class(model: Any, target: Target, keep_class: bool) -> Any:
    """The class of the crossed model, None for a plain one.

    Raises:
        ModelError: The user's class does something of its own and has no counterpart.
    """
    own = own_class(model)
    if own is None:
        return None
    given = target.custom.get(own.__name__)
    if given is not None and class_flavour(given) == target.to:
        return given
    methods = overridden(model)
    if not methods or not keep_class and "call" not in methods:
        return None
    raise ModelError(
        f"the model class {own.__name__} has its own {', '.join(methods)}",
        f"no {target.to} class of this name in custom_objects",
        f"Pass one: custom_objects={{'{own.__name__}': MyModel}}, built as MyModel(inputs, "
        "outputs); or keep_class=False for a plain model",
    )


class _Crossing:
    """Makes the counterpart of each layer, in the order of the graph's calls."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target, self.to = graph, target, target.to
        self.made: dict[str, Any] = {}
        self.given: dict[str, Any] = {}
        self.taken: set[str] = set(graph.input_names)
        # Taken before anything gets a name of its own, so that layers keep theirs.
        self.names = {n: self.free(legal_name(n, self.to)) for n in graph.layers()}
        self.known: dict[int, Any] = {}
        self.call: Call | None = None

    def note(self, call: Call) -> Call:
        """Remembers which call comes next."""
        self.call = call
        return call

    def make(self, name: str, layer: Any) -> Any:
        """What `replay` calls in place of a layer."""
        return lambda *args, **kwargs: self._run(name, layer, args, kwargs)

    def name(self, name: str) -> str:
        """The new name of a layer; where it is asked for again, another one that is free."""
        return self.names.pop(name, None) or self.free(legal_name(name, self.to))

    def free(self, name: str) -> str:
        """This name, or with a number behind it if another layer bears it."""
        free, n = name, 1
        while free in self.taken:
            free, n = f"{name}_{n}", n + 1
        self.taken.add(free)
        return free

    def _run(self, name: str, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        expected = [self.graph.tensors[i] for i in self.call.outputs]  # type: ignore[union-attr]
        if not hasattr(layer, "trainable"):
            return to_tensorflow(layer, self.name(name), args, kwargs, expected)
        if is_tf_op(layer):
            result = to_keras_ops(layer, name, args, kwargs, expected)
            return self._named(result, self.name(name))
        if isinstance(layer, KerasOp) and self.to == "keras3":
            filled, named = layer.filled(args[0])
            op = make_operation(layer.get_config()["op"], self.name(name))
            self.known[id(op)] = op
            return op(*filled, **named)
        kwargs = self._without_training(name, kwargs)
        if isinstance(layer, Keras3Layer) and self.to == "keras3":
            args, kwargs = layer.filled(args[0])
        elif self.to == "keras3" and _takes_states(layer) and isinstance(args[0], (list, tuple)):
            args, kwargs = _with_states(layer, args, kwargs)
        try:
            if name not in self.made:
                self.made[name], self.given[name] = self._convert(name, layer, args, kwargs)
            result = self._called(name, args, kwargs)
            if self.to == "keras3":
                self._name_masks(name, result)
            return self._masked(name, result, args)
        except (TypeError, ValueError) as e:
            kind = type(layer).__name__
            raise ModelError(
                f"layer '{name}' ({kind}) cannot be built or called in {self.to}",
                str(e).strip().splitlines()[0][:300] if str(e).strip() else type(e).__name__,
                f"Pass a {self.to} class for it: custom_objects={{'{kind}': MyLayer}}",
            ) from e

    def _named(self, result: Any, name: str) -> Any:
        """Gives the operations behind new tensors the layer's name, which no other bears."""
        waiting = [t for t in flatten(result) if is_symbolic(t)]
        while waiting:
            op = waiting.pop()._keras_history.operation
            if hasattr(op, "trainable") or id(op) in self.known:
                continue
            self.known[id(op)] = op
            op.name, name = name, self.free(f"{name}_of")
            waiting += op._inbound_nodes[-1].input_tensors
        return result

    def _name_masks(self, name: str, result: Any) -> None:
        """Keras 3 computes masks by operations, whose own names may be taken."""
        for tensor in flatten(result):
            mask = getattr(tensor, "_keras_mask", None)
            if mask is not None and is_symbolic(mask):
                self._named([mask], self.free(f"{name}_mask"))

    def _without_training(self, name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keras 3 takes the model's mode in spite of an argument, so only inference can cross."""
        if kwargs.get("training") is True and self.to == "keras3":
            raise ModelError(
                f"layer '{name}' is called with training=True, which Keras 3 does not heed inside "
                "a functional model",
                "training=True",
                "Pass a Keras 3 class in custom_objects that always acts as in training",
            )
        return {k: v for k, v in kwargs.items() if v is not None and k != "training"}

    def _convert(self, name: str, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The new layer, and for a carried one the arguments that it was made for."""
        new_name = self.name(name)
        if isinstance(layer, Keras3Layer):
            with keras3().utils.custom_object_scope(dict(self.target.custom)):
                return layer.rebuilt(new_name), None
        if isinstance(layer, PassMask) or type(layer).__module__ == "tfedge.bridge.native":
            return self._pass_mask(new_name), None
        own = self.target.custom.get(type(layer).__name__)
        try:
            new = convert_layer(layer, new_name, self.target)
            if self.to == "keras3" or _accepts(new, kwargs):
                return new, None
            raise NoCounterpart(
                f"layer '{name}' is called with arguments that tf_keras does not know",
                ", ".join(kwargs),
            )
        except NoCounterpart:
            if self.to == "keras3" or (own is not None and class_flavour(own) != "keras3"):
                raise
        return self._carried(new_name, layer, args, kwargs)

    def _carried(self, name: str, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        require_tensorflow(name)
        arguments, tensors = template(args, kwargs, name)
        expected = [self.graph.tensors[i] for i in self.call.outputs]  # type: ignore[union-attr]
        if not is_native(layer):
            remember(layer)
        new = Keras3Layer(
            serialized_keras3(layer, name),
            [t.dtype.name for t in tensors],
            arguments=arguments,
            shapes=[list(spec.shape) for spec in expected],
            name=name,
            trainable=layer.trainable,
        )
        return new, arguments

    def _called(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        new = self.made[name]
        if self.given[name] is None:
            return new(*args, **kwargs)
        arguments, tensors = template(args, kwargs, name)
        if arguments != self.given[name]:
            raise ModelError(
                f"layer '{name}' has no counterpart in tf_keras and is called in two ways",
                f"{self.given[name]} and {arguments}",
                "Use two layers, or pass a tf_keras class in custom_objects",
            )
        return new(tensors if len(tensors) > 1 else tensors[0])

    def _pass_mask(self, name: str) -> Any:
        if self.to == "tf_keras":
            return PassMask(name=name)
        from tfedge.bridge import native

        return native.PassMask(name=name)

    def _masked(self, name: str, result: Any, args: tuple) -> Any:
        """Gives the results masks where the source has them, and takes them elsewhere."""
        flat = flatten(result)
        numbers = self.call.outputs  # type: ignore[union-attr]
        wanted = [self.graph.tensors[i].masked for i in numbers]
        have = [getattr(t, "_keras_mask", None) is not None for t in flat]
        if len(flat) != 1 or wanted == have:
            return result
        layer = self._pass_mask(self.free(f"{name}_mask"))
        if not wanted[0]:
            return layer(flat[0])
        source = next(
            (t for t in flatten(list(args)) if getattr(t, "_keras_mask", None) is not None), None
        )
        if source is None:
            return result
        return layer([flat[0], source])

    def copy_weights(self) -> None:
        """Copies the weights of all layers that were made."""
        for name, layer in self.graph.layers().items():
            new = self.made.get(name)
            if new is None:
                continue
            if isinstance(new, Keras3Layer):
                for weight, value in zip(new.values(), layer.variables, strict=True):
                    weight.assign(np.asarray(value))
            elif isinstance(layer, Keras3Layer):
                for variable, value in zip(new.variables, layer.values(), strict=True):
                    variable.assign(np.asarray(value))
            elif layer.weights and not _holds_model(new):
                copy_weights(layer, new)


def _holds_model(layer: Any) -> bool:
    """True for a wrapper around a model, whose weights were copied when it crossed."""
    return hasattr(getattr(layer, "layer", None), "layers")


def _accepts(layer: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a tf_keras layer can be called with these keyword arguments."""
    parameters = inspect.signature(layer.call).parameters
    known = {*parameters, "mask", "initial_state", "constants"}
    return set(kwargs) <= known or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _takes_states(layer: Any) -> bool:
    wrapped = getattr(layer, "forward_layer", layer)
    return isinstance(wrapped, keras.layers.RNN)


def _with_states(layer: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """tf_keras notes down a recurrent layer's states and constants among its inputs."""
    sequence, *rest = args[0]
    count = getattr(layer, "_num_constants", None) or 0
    if count:
        raise ModelError(
            f"layer '{layer.name}' is called with constants, which do not cross to Keras 3",
            f"{count} constants",
            "Concatenate them to the sequence",
        )
    states = rest[0] if len(rest) == 1 else rest
    return (sequence, *args[1:]), {**kwargs, **({"initial_state": states} if rest else {})}
