"""Cuts channels out of a model: gathers all positions a weight loses and cuts each weight once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from tfedge._keras import library
from tfedge.errors import PlanError
from tfedge.graph.channels import Analysis, ChannelGroup, analyse, axis_labels
from tfedge.graph.collection import collection_paused
from tfedge.graph.copying import copy_layer
from tfedge.graph.site import Nested, Table
from tfedge.graph.trace import Call, Graph, replay


@collection_paused()
def cut(model: Any, cuts: dict[str, np.ndarray], analysis: Analysis | None = None) -> Any:
    """Builds the network in which some channels do not exist.

    Args:
        model: A built functional or sequential model of either Keras; it is not changed.
        cuts: Channels to remove by group name, int arrays.
        analysis: The result of `analyse(model)`, where it is at hand.

    Returns:
        A new functional model with the same input and output names; every layer keeps its name.

    Raises:
        PlanError: A group does not exist, is blocked, would lose all its channels, or a channel
            number is out of range.
    """
    analysis = analysis or analyse(model)
    alive = alive_labels(analysis, cuts)
    return _with_weights(analysis.graph, _cut_weights(analysis, alive), analysis.table, alive)


def rebuild(graph: Graph) -> Any:
    """A model with new layers of the same configs and weights, from a traced (or edited) graph.

    Args:
        graph: The graph; its layers are not changed.
    """
    return _with_weights(graph, weights_of(graph), Table(), np.ones(1, dtype=bool))


def weights_of(graph: Graph) -> dict[str, list[np.ndarray]]:
    """The weights of each layer (none of an operation), by its name in the graph."""
    return {
        name: layer.get_weights() if hasattr(layer, "get_weights") else []
        for name, layer in graph.layers().items()
    }


def fill(made: Mapping[str, Any], weights: Mapping[str, list[np.ndarray]]) -> None:
    """Sets the weights of new layers.

    Args:
        made: The layers by name, built.
        weights: What `weights_of` gives, of the same names.
    """
    for name, values in weights.items():
        if values:
            made[name].set_weights(values)
            if hasattr(made[name], "finalize_state"):  # Normalization derives constants from them
                made[name].finalize_state()


def _with_weights(
    graph: Graph, weights: dict[str, list[np.ndarray]], table: Table, alive: np.ndarray
) -> Any:
    made: dict[str, Any] = {}
    model = _rebuilt(graph, table, alive, made)
    fill(made, weights)
    return model


def _rebuilt(graph: Graph, table: Table, alive: np.ndarray, made: dict[str, Any]) -> Any:
    """The model with smaller layers and new weights; the layers go into `made`."""
    changes = _config_changes(table, alive)
    for (name, key), nested in table.nested.items():
        inner = _rebuilt(_with_cut_inputs(nested, alive), nested.table, alive, {})
        serialize = library(nested.graph.flavour).saving.serialize_keras_object
        changes.setdefault(name, {})[key] = serialize(inner)

    def make(name: str, layer: Any) -> Any:
        made[name] = copy_layer(layer, changes.get(name), name)
        return made[name]

    with _custom_layers(table):
        return replay(graph, make, lambda call: _edited(table, call, alive))


def _with_cut_inputs(nested: Nested, alive: np.ndarray) -> Graph:
    """The graph of a model inside a wrapper, with inputs of the size that reaches it now."""
    tensors = list(nested.graph.tensors)
    for number in nested.graph.inputs:
        shape = list(tensors[number].shape)
        for axis in nested.marks[number].axes:
            labels = axis_labels(nested.marks[number], axis, shape[axis] or 1)
            shape[axis] = int(_stays(labels, alive).sum())
        tensors[number] = replace(tensors[number], shape=tuple(shape))
    return replace(nested.graph, tensors=tensors)


def _custom_layers(table: Table) -> Any:
    """A scope that knows the classes of layers inside wrapped models."""
    layers = [x for n in table.nested.values() for x in n.graph.layers().values()]
    own = ("keras", "tf_keras")
    custom = {
        type(x).__name__: type(x) for x in layers if type(x).__module__.split(".")[0] not in own
    }
    kinds = {n.graph.flavour for n in table.nested.values()}
    if not custom:
        return nullcontext()
    return library(kinds.pop()).utils.custom_object_scope(custom)


def alive_labels(analysis: Analysis, cuts: dict[str, np.ndarray]) -> np.ndarray:
    """Whether each label stays: bool array, with True at its end for the label -1."""
    by_name = {g.name: (i, g) for i, g in enumerate(analysis.groups)}
    alive = np.ones(len(analysis.group_of) + 1, dtype=bool)
    for name, channels in cuts.items():
        if name not in by_name:
            raise PlanError("the plan names a group that the model does not have", f"'{name}'")
        number, group = by_name[name]
        channels = np.unique(np.asarray(channels, dtype=int))
        if not len(channels):
            continue
        _check(group, channels, analysis.parts[number])
        dead = (analysis.group_of == number) & np.isin(analysis.channel_of, channels)
        alive[:-1][dead] = False
    return alive


def _check(group: ChannelGroup, channels: np.ndarray, parts: list[frozenset[int]]) -> None:
    """Refuses a cut that cannot be carried out."""
    name = group.name
    if group.blocked:
        raise PlanError(f"group '{name}' cannot be cut", group.blocked)
    if channels[0] < 0 or channels[-1] >= group.channels:
        raise PlanError(
            f"group '{name}' has channels 0 to {group.channels - 1}",
            f"channel {channels[-1] if channels[0] >= 0 else channels[0]}",
        )
    if group.fixed[channels].any():
        raise PlanError(
            f"channel {channels[group.fixed[channels]][0]} of group '{name}' cannot be cut"
        )
    if len(channels) == group.channels:
        raise PlanError(
            f"group '{name}' would lose all its {group.channels} channels",
            fix="Keep at least one",
        )
    lost = next((p for p in parts if p <= set(channels.tolist())), None)
    if lost is not None:
        raise PlanError(
            f"a part of group '{name}' would lose all its channels",
            f"channels {sorted(lost)}",
            "Keep at least one of them: a layer or slice consists of them alone",
        )


def _stays(labels: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Bool array [n]: which positions stay, for labels [n] or [k, n]."""
    return alive[labels.reshape(-1, labels.shape[-1])].all(axis=0)


def _cut_weights(analysis: Analysis, alive: np.ndarray) -> dict[str, list[np.ndarray]]:
    """All weights by layer, with the dead positions taken out."""
    axes: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for b in analysis.table.bindings.values():
        axes.setdefault((b.layer, b.weight), {})[b.axis] = _stays(b.labels, alive)
    out: dict[str, list[np.ndarray]] = {}
    for name, layer in analysis.graph.layers().items():
        values = layer.get_weights() if hasattr(layer, "get_weights") else []
        for number, value in enumerate(values):
            for axis, stay in axes.get((name, number), {}).items():
                if not stay.all():
                    value = np.compress(stay, value, axis=axis)
            kept = analysis.table.scales.get((name, number))
            if kept is not None:
                value = value * np.sqrt(_stays(kept, alive).mean(), dtype=value.dtype)
            values[number] = value
        out[name] = values
    return out


def _counted(kind: str, value: Any, alive: np.ndarray) -> Any:
    """What a config entry or parameter becomes: see `Site.size`, `Site.dims`, `Site.edit`."""

    def count(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return int(_stays(value, alive).sum()) if value.size else 0
        return [count(v) for v in value] if isinstance(value, list) else value

    if kind == "value":
        return value
    numbers = count(value)
    return np.cumsum(numbers).tolist() if kind == "indices" else numbers


def _config_changes(table: Table, alive: np.ndarray) -> dict[str, dict[str, Any]]:
    """New config entries (filters, units, target_shape...) by layer; keys may be dotted."""
    out: dict[str, dict[str, Any]] = {}
    for (name, key), (kind, value) in table.sizes.items():
        out.setdefault(name, {})[key] = _counted(kind, value, alive)
    return out


def _edited(table: Table, call: Call, alive: np.ndarray) -> Call:
    """The call with its shapes, bounds and constants cut."""
    edits = table.edits.get(call.outputs[0] if call.outputs else -1)
    if not edits:
        return call
    layer, args, kwargs = call.layer, call.args, call.kwargs
    for (where, *path), (kind, value) in edits.items():
        if where == "attr":
            new = _edit(getattr(layer, path[0]), path[1:], kind, value, alive)
            layer = copy_layer(layer, {path[0]: new})
        elif where == "args":
            args = _edit(args, path, kind, value, alive)
        else:
            kwargs = _edit(kwargs, path, kind, value, alive)
    return replace(call, layer=layer, args=args, kwargs=kwargs)


def _edit(old: Any, path: list[Any], kind: str, value: Any, alive: np.ndarray) -> Any:
    """Replaces the value at a path inside nested tuples, lists and dicts."""
    if path:
        key, *rest = path
        if isinstance(old, dict):
            return {**old, key: _edit(old[key], rest, kind, value, alive)}
        items = list(old)
        items[key] = _edit(items[key], rest, kind, value, alive)
        return tuple(items) if isinstance(old, tuple) else items
    if kind == "slice":
        start, stop = (int(_stays(v, alive).sum()) if v.size else 0 for v in value)
        if isinstance(old, dict):  # tf_keras keeps slices as dicts
            return {**old, "start": start, "stop": stop}
        return slice(start, stop, old.step)
    if kind == "compress":
        axis, labels = value
        new = np.compress(_stays(labels, alive), np.asarray(old), axis=axis)
        return new.tolist() if isinstance(old, (list, tuple)) else new
    if kind == "pick":
        return _picked(old, value, alive)
    new = _counted(kind, value, alive)
    return tuple(new) if isinstance(old, tuple) else new


def _picked(old: Any, value: Any, alive: np.ndarray) -> Any:
    """Positions of a gather, numbered anew; those of channels that are gone are left out."""
    labels, index = value[0], np.array(value[1], int)
    stay = _stays(labels, alive)
    new = (np.cumsum(stay) - 1)[index[stay[index]]]
    return new.tolist() if isinstance(old, (list, tuple)) else new.astype(np.asarray(old).dtype)
