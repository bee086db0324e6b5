"""What a cut saves, from index counts alone: no model is built."""

from __future__ import annotations

from math import prod

import numpy as np

from tfedge.graph import Analysis, Graph
from tfedge.profile import weight_uses


def cost_of(graph: Graph, what: str) -> float:
    """The cost of a traced model as it is: its "macs", "params" or "bytes"."""
    return _Sizes(graph).total({}, what)


class _Sizes:
    """Shapes, element sizes and uses of all weights of a traced model."""

    def __init__(self, graph: Graph) -> None:
        weights = {
            (name, i): w
            for name, layer in graph.layers().items()
            for i, w in enumerate(getattr(layer, "weights", []))
        }
        self.shapes = {key: tuple(w.shape) for key, w in weights.items()}
        self.itemsize = {key: _itemsize(w) for key, w in weights.items()}
        self.uses, _ = weight_uses(graph)

    def total(self, dims: dict[tuple[str, int], list[int]], what: str) -> float:
        """The cost with these shapes instead of the weights' own."""
        if what == "macs":
            keyed = ((u, (u.layer, u.weight)) for u in self.uses)
            return float(sum(u.macs(dims.get(k, self.shapes[k])) for u, k in keyed))
        sizes = {k: prod(dims.get(k, shape)) for k, shape in self.shapes.items()}
        if what == "params":
            return float(sum(sizes.values()))
        return float(sum(n * self.itemsize[k] for k, n in sizes.items()))


class Costs:
    """Parameters, multiply-accumulates and bytes of a model after a cut.

    Args:
        analysis: The analysed model.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.sizes = _Sizes(analysis.graph)
        self.channels = [g.channels for g in analysis.groups]
        slices = [
            (i, (s.layer, s.weight), s) for i, g in enumerate(analysis.groups) for s in g.slices
        ]
        # Where two labels own one position (two pruned axes made flat), it is counted once.
        taken: dict[tuple, int] = {}
        for _, key, s in slices:
            taken[key, s.axis] = taken.get((key, s.axis), 0) + len(s.index)
        shapes = self.sizes.shapes
        twice = {k for k, n in taken.items() if n > shapes[k[0]][k[1]]}
        self.slices = [(i, k, s.axis, s.channel) for i, k, s in slices if (k, s.axis) not in twice]
        self.doubles = [(i, k, s) for i, k, s in slices if (k, s.axis) in twice]

    def of(self, dead: dict[int, np.ndarray], what: str) -> float:
        """The cost after a cut.

        Args:
            dead: Bool arrays [channels] by group index: True for channels that go.
            what: "macs", "params" or "bytes".
        """
        dims: dict[tuple[str, int], list[int]] = {}
        for group, key, axis, channel in self.slices:
            if group in dead:
                row = dims.setdefault(key, list(self.sizes.shapes[key]))
                row[axis] -= int(np.count_nonzero(dead[group][channel]))
        for (key, axis), mask in self._lost_doubles(dead).items():
            dims.setdefault(key, list(self.sizes.shapes[key]))[axis] -= int(mask.sum())
        return self.sizes.total(dims, what)

    def _lost_doubles(self, dead: dict[int, np.ndarray]) -> dict[tuple, np.ndarray]:
        """Positions that go, of the axes where two labels own one position."""
        gone: dict[tuple, np.ndarray] = {}
        for group, key, s in self.doubles:
            if group in dead:
                length = self.sizes.shapes[key][s.axis]
                mask = gone.setdefault((key, s.axis), np.zeros(length, bool))
                mask[s.index[dead[group][s.channel]]] = True
        return gone

    def after(self, counts: list[int], what: str) -> float:
        """The cost where each group loses its first `counts[i]` channels.

        Exact wherever the channels of a group are alike in how many weights they have.
        """
        pairs = zip(self.channels, counts, strict=True)
        return self.of({i: np.arange(n) < c for i, (n, c) in enumerate(pairs) if c}, what)


def _itemsize(weight: object) -> int:
    """Bytes of one element of a weight of either Keras."""
    dtype = getattr(weight, "dtype", "float32")
    name = dtype if isinstance(dtype, str) else dtype.name
    return {"bfloat16": 2}.get(name) or np.dtype(name).itemsize
