"""Which Keras layer stands behind a tensor or op of a file.

Converters name tensors by the path of TensorFlow scopes ("model/conv/Conv2D") and join the paths of
fused ops with ";". A Keras layer's name is one path component, or several where it holds slashes.
The names are the only trace that a file keeps, so this is a search and not a proof: an op whose
names say nothing takes the layer of the op that feeds it, and "" means that none was found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tfedge.tflite import flatbuffer

_REPEAT = re.compile(r"_\d+$")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\\/>-]")
_QAT_PREFIX = "quant_"

Path = tuple[str, ...]


class LayerFinder:
    """Finds known Keras layers in tensor names.

    Args:
        layers: Keras layer names in topological order.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.order: dict[str, int] = {name: i for i, name in enumerate(layers)}
        self._paths: dict[Path, str] = {}
        for name in layers:
            # QAT wraps a layer in one named "quant_<layer>"; its own name wins where both exist.
            self._paths.setdefault(_components(_QAT_PREFIX + name), name)
        for name in layers:
            self._paths[_components(name)] = name
        self._longest = max((len(path) for path in self._paths), default=0)

    def all(self, tensor_name: str) -> list[str]:
        """The layers of a tensor's (";"-joined) name, in topological order, each once."""
        found = {self._one(part) for part in tensor_name.split(";") if part}
        return sorted(found - {""}, key=self.order.__getitem__)

    def latest(self, tensor_names: Iterable[str]) -> str:
        """The topologically latest layer of several names: a fused op ends with it; or ""."""
        found = [layer for name in tensor_names for layer in self.all(name)]
        return max(found, key=self.order.__getitem__, default="")

    def earliest(self, tensor_names: Iterable[str]) -> str:
        """The topologically first layer of several names: the one with the weights; or ""."""
        found = [layer for name in tensor_names for layer in self.all(name)]
        return min(found, key=self.order.__getitem__, default="")

    def _one(self, part: str) -> str:
        if part in self.order:  # A converter that binds names calls an output like its layer.
            return part
        path = _components(part)
        # A layer called twice gets "_1" on its second scope, so that is tried when all else fails.
        plain = tuple(_REPEAT.sub("", c) for c in path)
        # The first component is the model's name, which a layer may share: it comes last. After
        # it, the outermost scope is the layer; what lies deeper are ops of its own ("add_1").
        for candidate in (path, plain):
            for start in [*range(1, len(path)), 0]:
                for size in range(min(self._longest, len(path) - start), 0, -1):
                    layer = self._paths.get(candidate[start : start + size])
                    if layer is not None:
                        return layer
        return ""


def _components(name: str) -> Path:
    return tuple(_UNSAFE.sub("_", name).split("/"))


def op_layers(model: Any, layers: Sequence[str]) -> list[str]:
    """The Keras layer behind each op of the main subgraph.

    The op's output names decide, then its largest constant's (its kernel), then, for names without
    any path ("Identity", "tfl.quantize"), the op that feeds it.

    Args:
        model: What `flatbuffer.read` gave.
        layers: Keras layer names in topological order.

    Returns:
        A name or "" per op, in execution order.
    """
    finder = LayerFinder(layers)
    graph = model.subgraphs[0]
    ends = _output_names(model)
    behind: dict[int, str] = {}
    found = []
    for op in graph.operators or []:
        outputs = [int(t) for t in op.outputs if t >= 0]
        names = [flatbuffer.tensor_name(graph.tensors[t]) for t in outputs]
        layer = finder.latest([*names, *(n for t in outputs for n in ends.get(t, []))])
        if not layer:
            layer = finder.latest(_kernel_name(model, graph, op))
        if not layer and not any("/" in name for name in names):
            fed = [behind[int(t)] for t in op.inputs if int(t) in behind]
            layer = max((f for f in fed if f), key=finder.order.__getitem__, default="")
        behind.update(dict.fromkeys(outputs, layer))
        found.append(layer)
    return found


def _output_names(model: Any) -> dict[int, list[str]]:
    signature = flatbuffer.get_signature(model)
    names: dict[int, list[str]] = {}
    for name, index in (signature[1] if signature else {}).items():
        names.setdefault(index, []).append(name)
    return names


def _kernel_name(model: Any, graph: Any, op: Any) -> list[str]:
    """The name of the op's largest constant: small ones (zero biases) are shared by layers."""
    sizes = {int(t): constant_bytes(model, graph.tensors[int(t)]) for t in op.inputs if t >= 0}
    kernel = max(sizes, key=sizes.__getitem__, default=-1)
    return [flatbuffer.tensor_name(graph.tensors[kernel])] if sizes.get(kernel) else []


def constant_bytes(model: Any, tensor: Any) -> int:
    """Bytes of constant data behind a tensor; 0 where it has none."""
    raw = model.buffers[tensor.buffer].data
    return 0 if raw is None else len(raw)


def size_by_layer(model: Any, layers: Sequence[str]) -> dict[str, int]:
    """Bytes of constants by Keras layer, in execution order.

    A fused op's constants count for its first layer (the convolution, not the activation), whose
    weights they are. A buffer that several ops share counts once, for the first of them. Ops
    without a known layer stand under "<position> <OP>"; what no op of the main subgraph reads
    (other subgraphs, metadata) stands under "(other)".

    Args:
        model: What `flatbuffer.read` gave.
        layers: Keras layer names in topological order.
    """
    graph, finder = model.subgraphs[0], LayerFinder(layers)
    sizes: dict[str, int] = {}
    counted: set[int] = set()
    for index, op in enumerate(graph.operators or []):
        size = 0
        for t in op.inputs:
            if t >= 0 and graph.tensors[t].buffer not in counted:
                counted.add(graph.tensors[t].buffer)
                size += constant_bytes(model, graph.tensors[t])
        if size:
            outputs = [flatbuffer.tensor_name(graph.tensors[t]) for t in op.outputs if t >= 0]
            first = finder.earliest([*outputs, *_kernel_name(model, graph, op)])
            label = first or f"{index} {flatbuffer.op_name(model, op)}"
            sizes[label] = sizes.get(label, 0) + size
    rest = [b for i, b in enumerate(model.buffers) if i not in counted and b.data is not None]
    other = sum(len(b.data) for b in rest)
    return {**sizes, "(other)": other} if other else sizes
