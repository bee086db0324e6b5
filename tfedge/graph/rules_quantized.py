"""Rules for the layers of a quantize-aware model (tfedge.quant), whose ranges are cut along."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.graph.labels import Marks
from tfedge.graph.site import Site


def wrapped(site: Site) -> Any:
    """TfedgeQuantizeWrapper: the rule of the layer inside; learned limits go with the channels.

    Ranges of activations are of whole tensors and stay; zeros of dead channels do not move them.
    """
    from tfedge.graph.registry import rule_for  # the table names this module's rules

    inner = site.within(site.layer.layer, "layer", site.inputs)
    constant = not inner.layer.trainable and bool(inner.layer.weights)
    before = len(site.table.labels)
    result = rule_for(inner.layer)(inner)
    made = np.arange(before, len(site.table.labels))
    if constant and made.size:
        site.block(made, "does not train: what it computes is part of another layer's function")
    for kernel, quantizer, stored in site.layer._weight_vars:
        _with_kernel(site, kernel, quantizer, stored)
    return result


def _with_kernel(site: Site, kernel: Any, quantizer: Any, stored: dict[str, Any]) -> None:
    """Binds what is stored beside a kernel."""
    weights = site.owner.layer.weights
    number = next(i for i, w in enumerate(weights) if w is kernel)
    axes = {
        axis: b.labels
        for (layer, weight, axis), b in site.table.bindings.items()
        if layer == site.owner.name and weight == number
    }
    if "clusters" in stored:
        for labels in axes.values():
            site.block(labels, "preserves clusters, which zeros would split")
    limits = stored["max_var"]
    if not any(w is limits for w in weights) or not len(limits.shape):
        return
    labels = _scale_labels(quantizer.axis, kernel.shape, axes)
    if labels is not None:
        site.bind_variable(limits, "range", labels)


def _scale_labels(axis: str, shape: Any, axes: dict[int, np.ndarray]) -> np.ndarray | None:
    """Labels of a kernel's scales; None where no channel of its scales can be cut."""
    rank = len(shape)
    if axis != "depthwise":
        return axes.get(rank - 2 if axis == "filter" else rank - 1)
    channels, multiplier = axes.get(rank - 2), axes.get(rank - 1)
    if channels is None:
        return multiplier
    return np.repeat(channels, int(shape[-1]), axis=-1)


def same(site: Site) -> Marks:
    """InputQuantizer, Boundary, Requantize, Tabled, AboveZero: work on each value alone."""
    return site.inputs[0]
