"""What a cut saves, from index counts alone: no model is built."""

from __future__ import annotations

from math import prod

import numpy as np

from tfedge.graph import Analysis
from tfedge.profile import weight_uses


class Costs:
    """Parameters and multiply-accumulates of a model after a cut.

    Args:
        analysis: The analysed model.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.shapes = {
            (name, i): tuple(w.shape)
            for name, layer in analysis.graph.layers().items()
            for i, w in enumerate(getattr(layer, "weights", []))
        }
        self.uses, _ = weight_uses(analysis.graph)
        slices = [
            (i, (s.layer, s.weight), s) for i, g in enumerate(analysis.groups) for s in g.slices
        ]
        # Where two labels own one position (two pruned axes made flat), it is counted once.
        taken: dict[tuple, int] = {}
        for _, key, s in slices:
            taken[key, s.axis] = taken.get((key, s.axis), 0) + len(s.index)
        twice = {k for k, n in taken.items() if n > self.shapes[k[0]][k[1]]}
        self.slices = [(i, k, s.axis, s.channel) for i, k, s in slices if (k, s.axis) not in twice]
        self.doubles = [(i, k, s) for i, k, s in slices if (k, s.axis) in twice]

    def of(self, dead: dict[int, np.ndarray], what: str) -> float:
        """The cost after a cut.

        Args:
            dead: Bool arrays [channels] by group index: True for channels that go.
            what: "macs" or "params".
        """
        dims = {k: list(v) for k, v in self.shapes.items()}
        for group, key, axis, channel in self.slices:
            if group in dead:
                dims[key][axis] -= int(dead[group][channel].sum())
        gone: dict[tuple, np.ndarray] = {}
        for group, key, s in self.doubles:
            if group in dead:
                mask = gone.setdefault((key, s.axis), np.zeros(self.shapes[key][s.axis], bool))
                mask[s.index[dead[group][s.channel]]] = True
        for (key, axis), mask in gone.items():
            dims[key][axis] -= int(mask.sum())
        if what == "params":
            return float(sum(prod(d) for d in dims.values()))
        return float(sum(u.positions * prod(dims[u.layer, u.weight]) for u in self.uses))
