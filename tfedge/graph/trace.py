"""A functional Keras model as plain data, and its replay with other layers.

`trace` reads the calls of a Functional or Sequential model (either Keras) in execution order, with
nested models written out in place. `replay` runs those calls again with new layers: the one
mechanism that pruning, folding, quantization and the bridge use to rebuild a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tfedge._keras import flavour, keras, library, tf
from tfedge.errors import ModelError
from tfedge.graph.collection import collection_paused
from tfedge.graph.lambdas import last_operation, opened
from tfedge.graph.model_class import build_model, own_class


@dataclass(frozen=True)
class Ref:
    """Stands for tensor number `index` of a graph inside the arguments of a call."""

    index: int


@dataclass(frozen=True)
class Tensor:
    """Shape (batch first, None where free), dtype name and whether a mask goes with a tensor."""

    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False


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
        model: The model that was read, whose class a replay keeps.
    """

    name: str
    flavour: str
    inputs: list[int] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    outputs: Any = None
    calls: list[Call] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    structured_inputs: Any = None
    model: Any = None

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


def dtype_name(value: Any) -> str:
    """Name of a tensor's or variable's dtype, whichever Keras it is of."""
    return value.dtype if isinstance(value.dtype, str) else str(value.dtype.name)


def input_names(net: Any) -> list[str]:
    """Names of a graph network's inputs, in order (Keras 3 keeps them on the input layers)."""
    names = getattr(net, "input_names", None)
    return list(names) if names else [t._keras_history.operation.name for t in net.inputs]


def output_names(net: Any) -> list[str]:
    """Names of a graph network's outputs: its keys where it returns a dict, else its layers'."""
    struct = getattr(net, "_nested_outputs", None)
    struct = getattr(net, "_outputs_struct", struct)
    if isinstance(struct, dict) and len(struct) == len(flatten(struct)):
        return sorted(struct)
    return list(net.output_names)


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

    def unique_name(self, layer: Any, prefix: str, wanted: str = "") -> str:
        if id(layer) not in self.names:
            name = wanted or layer.name
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
        masked = getattr(tensor, "_keras_mask", None) is not None
        self.graph.tensors.append(Tensor(tuple(tensor.shape), dtype_name(tensor), masked))
        return len(self.graph.tensors) - 1

    def run(self, model: Any, feeds: list[int] | None, prefix: str, training: Any = None) -> Any:
        """Adds the calls of `model`; returns its output structure as Refs.

        Args:
            model: The graph network.
            feeds: Tensor numbers that enter a nested model; None for the outermost.
            prefix: Name of the nested model, for names that are taken.
            training: What a nested tf_keras model was called with (Keras 3 does not heed it).
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
        ends = {id(t) for t in net.outputs}
        for node in _nodes(net):
            is_end = bool(ends & {id(t) for t in flatten(node.outputs)})
            self._add(node, known, prefix, training, is_end)
        struct = net._nested_outputs if hasattr(net, "_nested_outputs") else net._outputs_struct
        return map_structure(lambda t: Ref(known[id(t)]), struct)

    def _inside(self, layer: Any, inputs: Any, outputs: list[Any], is_end: bool) -> Any:
        """What a Lambda runs; an output keeps the Lambda's name. None where it stays a Lambda."""
        inside = opened(layer, inputs, outputs)
        if inside is None or not is_end:
            return inside
        last = last_operation(inside)
        if last is None:
            return None
        self.unique_name(last, "", layer.name)
        return inside

    def _add(
        self,
        node: Any,
        known: dict[int, int],
        prefix: str,
        training: Any,
        is_end: bool,
    ) -> None:
        layer, args, kwargs, outputs = _node_parts(node)
        if training is not None and getattr(layer, "_expects_training_arg", False):
            kwargs = {"training": training, **kwargs}
        used: list[int] = []
        flat = flatten(outputs)
        layer = self._inside(layer, args[0] if args else None, flat, is_end) or layer

        def to_ref(leaf: Any) -> Any:
            if id(leaf) in known and hasattr(leaf, "shape"):
                used.append(known[id(leaf)])
                return Ref(known[id(leaf)])
            return leaf

        args = map_structure(to_ref, tuple(args))
        kwargs = map_structure(to_ref, dict(kwargs))
        if is_nested(layer):
            fixed = kwargs.get("training") if flavour(layer) == "tf_keras" else None
            fresh = len(self.graph.tensors)
            inner = self.run(layer, _feeds(layer, args, kwargs), layer.name, fixed)
            for tensor, ref in zip(flat, flatten(inner), strict=True):
                known[id(tensor)] = ref.index
                if ref.index >= fresh:  # here the sizes are known that the model leaves free
                    old = self.graph.tensors[ref.index]
                    self.graph.tensors[ref.index] = replace(old, shape=tuple(tensor.shape))
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
        args, kwargs = node.arguments.args, node.arguments.kwargs
        mask = kwargs.get("mask")
        if mask is not None and args and mask is getattr(args[0], "_keras_mask", None):
            kwargs = {k: v for k, v in kwargs.items() if k != "mask"}  # Keras wrote it down itself
        return node.operation, args, kwargs, node.outputs
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


def _used(graph: Graph) -> list[Call]:
    """The calls without operations that nothing uses: those that made the masks of layers."""
    needed = set(graph.output_refs())
    kept: list[Call] = []
    for call in reversed(graph.calls):
        if hasattr(call.layer, "trainable") or needed & set(call.outputs):
            needed.update(call.inputs)
            kept.append(call)
    return kept[::-1]


def trace(model: Any) -> Graph:
    """Reads a functional or sequential model of either Keras as plain data.

    Args:
        model: A built Functional or Sequential model. Nested models are written out in place;
            their layers keep their names unless these are taken, then "<model>_<layer>". So are
            Lambda layers whose function runs on symbolic tensors, as the operations it is made of.

    Returns:
        The graph. The layers in it are the model's own objects, not copies.

    Raises:
        ModelError: The model is subclassed, unbuilt or not a Keras model.
    """
    name = model.name if hasattr(model, "name") else ""
    graph = Graph(name=name, flavour=flavour(model) or "", model=model)
    graph.outputs = _Tracer(graph).run(model, None, "")
    graph.calls = _used(graph)
    return graph


@collection_paused()
def replay(
    graph: Graph,
    make_layer: Callable[[str, Any], Any],
    edit: Callable[[Call], Call] | None = None,
    into: str | None = None,
    model_class: type | None = None,
) -> Any:
    """Builds a new model by running the calls of a graph with other layers.

    Args:
        graph: What `trace` returned.
        make_layer: Called once a layer with (unique name, layer); returns the layer (or any
            callable on symbolic tensors) to use in its place.
        edit: Optional; returns a call with changed layer, args or kwargs.
        into: Flavour of the new model; None keeps the graph's.
        model_class: Class of the new model; None keeps the user's own class within its flavour.

    Returns:
        A Functional model with the same input and output structure and names. A model of a user's
        class (`class Mine(keras.Model)`, built as `Mine(inputs, outputs)`) is of that class again.

    Raises:
        ModelError: The user's class cannot be built on the new tensors.
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
    outputs = map_structure(to_tensor, graph.outputs)
    if model_class is None and into in (None, graph.flavour):
        model_class = own_class(graph.model)
    if model_class is not None:
        return build_model(graph.model, model_class, inputs, outputs, graph.name)
    return lib.Model(inputs, outputs, name=graph.name)
