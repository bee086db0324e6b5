"""A functional Keras model as plain data, and its replay with other layers.

`trace` reads the calls of a Functional or Sequential model (either Keras) in execution order, with
nested models written out in place. `replay` runs those calls again with new layers: the one
mechanism that pruning, folding, quantization and the bridge use to rebuild a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tfedge._keras import flavour, keras, library, tf
from tfedge.errors import ModelError


@dataclass(frozen=True)
class Ref:
    """Stands for tensor number `index` of a graph inside the arguments of a call."""

    index: int


@dataclass(frozen=True)
class Tensor:
    """Shape (batch first, None where free) and dtype name of one symbolic tensor."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        layer: The layer object (a shared layer appears in several calls).
        name: The layer's name, made unique over nested models; equal for calls of one layer.
        args: Positional arguments, nested, tensors replaced by `Ref`.
        kwargs: Keyword arguments, likewise.
        inputs: Tensor numbers in `args` and `kwargs`, in order.
        outputs: Tensor numbers of the results, flattened.
    """

    layer: Any
    name: str
    args: tuple
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class Graph:
    """A functional model as data.

    Attributes:
        name: The model's name.
        flavour: "tf_keras" or "keras3".
        inputs: Tensor numbers of the model inputs, in order.
        input_names: Names of the model inputs, in order.
        outputs: The model's output structure with `Ref` in place of tensors.
        calls: All layer calls in execution order; input layers are left out.
        tensors: Shape and dtype by tensor number.
        structured_inputs: The model's input structure with `Ref` in place of tensors.
    """

    name: str
    flavour: str
    inputs: list[int] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    outputs: Any = None
    calls: list[Call] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    structured_inputs: Any = None

    def layers(self) -> dict[str, Any]:
        """Every layer once, by unique name, in order of first use."""
        return {c.name: c.layer for c in self.calls}

    def output_refs(self) -> list[int]:
        """Tensor numbers of the model outputs, flattened."""
        return [r.index for r in flatten(self.outputs)]


def flatten(structure: Any) -> list[Any]:
    """Flattens nested lists, tuples and dicts (dicts in key order, as Keras does)."""
    return tf.nest.flatten(structure)


def map_structure(fn: Callable[[Any], Any], structure: Any) -> Any:
    """Applies `fn` to the leaves of nested lists, tuples and dicts."""
    if isinstance(structure, dict):
        return {k: map_structure(fn, v) for k, v in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(map_structure(fn, v) for v in structure))
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_structure(fn, v) for v in structure)
    return fn(structure)


def functional_of(model: Any) -> Any:
    """The graph network behind a model.

    Raises:
        ModelError: The model is subclassed, not built, or not a Keras model.
    """
    kind = flavour(model)
    if kind is None or not hasattr(model, "layers"):
        raise ModelError(
            "this is not a Keras model", type(model).__name__, "Pass a tf_keras model or its file"
        )
    if kind == "keras3":
        inner = getattr(model, "_functional", model)
        if inner is not None and hasattr(inner, "_nodes_by_depth"):
            return inner
    elif getattr(model, "_is_graph_network", False):
        return model
    if type(model).__name__ == "Sequential":
        raise ModelError(
            f"the Sequential model '{model.name}' has no input shape yet",
            "an unbuilt model",
            "Add an Input layer, or call the model once on data",
        )
    raise ModelError(
        f"'{model.name}' is a subclassed model, whose layers cannot be traced",
        f"class {type(model).__name__}",
        "Rebuild it with the functional API: Model(inputs, outputs)",
    )


def input_names(net: Any) -> list[str]:
    """Names of a graph network's inputs, in order (Keras 3 keeps them on the input layers)."""
    names = getattr(net, "input_names", None)
    return list(names) if names else [t._keras_history.operation.name for t in net.inputs]


def is_nested(layer: Any) -> bool:
    """True for a Functional or Sequential model used as a layer."""
    if not hasattr(layer, "layers"):
        return False
    if flavour(layer) == "keras3":
        inner = getattr(layer, "_functional", layer)
        return inner is not None and hasattr(inner, "_nodes_by_depth")
    return isinstance(layer, keras.Model) and getattr(layer, "_is_graph_network", False)


class _Tracer:
    """Reads one model, and the models nested in it, into a Graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names: dict[int, str] = {}
        self.taken: set[str] = set()
        self.keep_alive: list[Any] = []

    def unique_name(self, layer: Any, prefix: str) -> str:
        if id(layer) not in self.names:
            name = layer.name
            if name in self.taken:
                base = f"{prefix}_{name}" if prefix else name
                name, n = base, 1
                while name in self.taken:
                    name, n = f"{base}_{n}", n + 1
            self.taken.add(name)
            self.names[id(layer)] = name
            self.keep_alive.append(layer)
        return self.names[id(layer)]

    def new_tensor(self, tensor: Any) -> int:
        dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
        self.graph.tensors.append(Tensor(tuple(tensor.shape), dtype))
        return len(self.graph.tensors) - 1

    def run(self, model: Any, feeds: list[int] | None, prefix: str) -> Any:
        """Adds the calls of `model`; returns its output structure as Refs.

        Args:
            model: The graph network.
            feeds: Tensor numbers that enter a nested model; None for the outermost.
            prefix: Name of the nested model, for names that are taken.
        """
        net = functional_of(model)
        known: dict[int, int] = {}
        for i, tensor in enumerate(net.inputs):
            known[id(tensor)] = self.new_tensor(tensor) if feeds is None else feeds[i]
        if feeds is None:
            self.graph.inputs = [known[id(t)] for t in net.inputs]
            self.graph.input_names = input_names(net)
            struct = getattr(net, "_nested_inputs", None)
            struct = getattr(net, "_inputs_struct", struct)
            self.graph.structured_inputs = map_structure(lambda t: Ref(known[id(t)]), struct)
        for node in _nodes(net):
            self._add(node, known, prefix)
        struct = net._nested_outputs if hasattr(net, "_nested_outputs") else net._outputs_struct
        return map_structure(lambda t: Ref(known[id(t)]), struct)

    def _add(self, node: Any, known: dict[int, int], prefix: str) -> None:
        layer, args, kwargs, outputs = _node_parts(node)
        used: list[int] = []

        def to_ref(leaf: Any) -> Any:
            if id(leaf) in known and hasattr(leaf, "shape"):
                used.append(known[id(leaf)])
                return Ref(known[id(leaf)])
            return leaf

        args = map_structure(to_ref, tuple(args))
        kwargs = map_structure(to_ref, dict(kwargs))
        flat = flatten(outputs)
        if is_nested(layer):
            fresh = len(self.graph.tensors)
            inner = self.run(layer, _feeds(layer, args, kwargs), layer.name)
            for tensor, ref in zip(flat, flatten(inner), strict=True):
                known[id(tensor)] = ref.index
                if ref.index >= fresh:  # here the sizes are known that the model leaves free
                    old = self.graph.tensors[ref.index]
                    self.graph.tensors[ref.index] = Tensor(tuple(tensor.shape), old.dtype)
            return
        for tensor in flat:
            known[id(tensor)] = self.new_tensor(tensor)
        name = self.unique_name(layer, prefix)
        numbers = tuple(known[id(t)] for t in flat)
        self.graph.calls.append(Call(layer, name, args, kwargs, tuple(used), numbers))


def _nodes(net: Any) -> Iterator[Any]:
    """Nodes in execution order, without those of input layers."""
    for depth in sorted(net._nodes_by_depth, reverse=True):
        for node in net._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _node_parts(node: Any) -> tuple[Any, tuple, dict, Any]:
    """Layer, args, kwargs and outputs of a node of either Keras."""
    if hasattr(node, "arguments"):  # Keras 3
        return node.operation, node.arguments.args, node.arguments.kwargs, node.outputs
    return node.layer, node.call_args, node.call_kwargs, node.outputs


def _feeds(layer: Any, args: tuple, kwargs: dict) -> list[int]:
    """Tensor numbers for the inputs of a nested model, in its own input order."""
    passed = args[0] if args else kwargs["inputs"]
    if isinstance(passed, dict):
        net = functional_of(layer)
        names = input_names(net)
        if all(n in passed for n in names):
            return [passed[n].index for n in names]
    return [r.index for r in flatten(passed)]


def trace(model: Any) -> Graph:
    """Reads a functional or sequential model of either Keras as plain data.

    Args:
        model: A built Functional or Sequential model. Nested models are written out in place;
            their layers keep their names unless these are taken, then "<model>_<layer>".

    Returns:
        The graph. The layers in it are the model's own objects, not copies.

    Raises:
        ModelError: The model is subclassed, unbuilt or not a Keras model.
    """
    graph = Graph(name=model.name if hasattr(model, "name") else "", flavour=flavour(model) or "")
    graph.outputs = _Tracer(graph).run(model, None, "")
    return graph


def replay(
    graph: Graph,
    make_layer: Callable[[str, Any], Any],
    edit: Callable[[Call], Call] | None = None,
    into: str | None = None,
) -> Any:
    """Builds a new model by running the calls of a graph with other layers.

    Args:
        graph: What `trace` returned.
        make_layer: Called once a layer with (unique name, layer); returns the layer (or any
            callable on symbolic tensors) to use in its place.
        edit: Optional; returns a call with changed layer, args or kwargs.
        into: Flavour of the new model; None keeps the graph's.

    Returns:
        A Functional model with the same input and output structure and names.
    """
    lib = library(into or graph.flavour)
    values: dict[int, Any] = {}
    for number, name in zip(graph.inputs, graph.input_names, strict=True):
        spec = graph.tensors[number]
        values[number] = lib.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name)
    made: dict[str, Any] = {}

    def to_tensor(leaf: Any) -> Any:
        return values[leaf.index] if isinstance(leaf, Ref) else leaf

    for call in graph.calls:
        call = edit(call) if edit else call
        if call.name not in made:
            made[call.name] = make_layer(call.name, call.layer)
        args, kwargs = map_structure(to_tensor, call.args), map_structure(to_tensor, call.kwargs)
        result = made[call.name](*args, **kwargs)
        for number, tensor in zip(call.outputs, flatten(result), strict=True):
            values[number] = tensor
    inputs = map_structure(to_tensor, graph.structured_inputs)
    return lib.Model(inputs, map_structure(to_tensor, graph.outputs), name=graph.name)


def custom_objects_of(layer: Any) -> dict[str, Any]:
    """Functions and classes that a layer's config may name and that Keras does not know.

    A user's activation or regulariser is serialised by name; rebuilding the layer needs the object
    itself, which the layer still holds.
    """
    found: dict[str, Any] = {}
    for value in vars(layer).values():
        if isinstance(value, type) or not callable(value):
            continue
        name = getattr(value, "__name__", None)
        if name and not hasattr(value, "get_config"):
            found[name] = value
        elif flavour(value) is not None or not type(value).__module__.startswith("builtins"):
            found[type(value).__name__] = type(value)
    return found


def _set(config: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets an entry of a nested config; the dicts on the way are copied."""
    key, *rest = path
    if not rest:
        config[key] = value
        return
    inner = config.get(key)
    if isinstance(inner, dict):
        config[key] = dict(inner)
        _set(config[key], rest, value)
    elif isinstance(inner, (list, tuple)):  # the cells of stacked cells
        config[key] = list(inner)
        number, *rest = rest
        config[key][int(number)] = dict(inner[int(number)])
        _set(config[key][int(number)], rest, value)


def _without_builds(config: Any) -> Any:
    """Drops "build_config" from wrapped layers: it would build them for the old shapes."""
    if isinstance(config, dict):
        return {k: _without_builds(v) for k, v in config.items() if k != "build_config"}
    return [_without_builds(v) for v in config] if isinstance(config, list) else config


def copy_operation(op: Any, changes: dict[str, Any] | None = None, name: str | None = None) -> Any:
    """A new Keras 3 operation that belongs to no graph yet.

    Args:
        op: The operation.
        changes: Parameters to replace.
        name: New name, or None to keep the operation's own.
    """
    try:
        config = {**op.get_config(), **(changes or {}), "name": name or op.name}
    except NotImplementedError:  # an array parameter has no config
        new = object.__new__(type(op))
        vars(new).update({**vars(op), **(changes or {}), "name": name or op.name})
        new._inbound_nodes, new._outbound_nodes = [], []
        return new
    return type(op).from_config(config)


def _copy_lambda(layer: Any, name: str | None) -> Any:
    """A Lambda with the same function object, whose config would lose what it closes over."""
    return type(layer)(
        layer.function,
        output_shape=getattr(layer, "_output_shape", None),
        mask=getattr(layer, "mask", None),
        arguments=layer.arguments,
        name=name or layer.name,
        dtype=layer.get_config()["dtype"],
        trainable=layer.trainable,
    )


def copy_layer(layer: Any, changes: dict[str, Any] | None = None, name: str | None = None) -> Any:
    """A new, unbuilt layer of the same class from the layer's config.

    Args:
        layer: A layer of either Keras, or a Keras 3 operation (then only the name changes).
        changes: Config entries to replace; a dotted key reaches into a wrapped layer's config, and
            is left out where the config has no such entry.
        name: New name, or None to keep the layer's own.

    Raises:
        ModelError: The layer has no usable `get_config`.
    """
    if not hasattr(layer, "trainable"):
        return copy_operation(layer, changes, name)
    if type(layer).__name__ == "Lambda" and hasattr(layer, "function"):
        return _copy_lambda(layer, name)
    try:
        config = dict(layer.get_config())
        for key, value in (changes or {}).items():
            _set(config, key.split("."), value)
        config = _without_builds(config)
        if name is not None:
            config["name"] = name
        scope = library(flavour(layer) or "tf_keras").utils.custom_object_scope
        with scope(custom_objects_of(layer)):
            return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as e:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its config",
            str(e).splitlines()[0] if str(e) else type(e).__name__,
            "Give the layer a get_config() that returns all arguments of its __init__",
        ) from e
