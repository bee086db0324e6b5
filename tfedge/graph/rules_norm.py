"""Rules of normalization layers: which axes they count, which weights lie along them."""

from __future__ import annotations

from typing import Any

from tfedge.graph.labels import Marks
from tfedge.graph.site import Site

_BATCH_WEIGHTS = (
    "gamma beta moving_mean moving_variance moving_stddev renorm_mean renorm_stddev".split()
)


def _axes(axis: Any, rank: int) -> list[int]:
    return [int(a) % rank for a in (axis if hasattr(axis, "__iter__") else [axis])]


def batch_norm(site: Site) -> Marks:
    """BatchNormalization: vectors along its axis; fixed numbers at inference."""
    axes = _axes(site.layer.axis, len(site.in_shapes[0]))
    if len(axes) != 1:
        if site.inputs[0].axes:
            site.block_inputs("normalizes over several axes")
        return site.inputs[0]
    vector, rest = site.split(axes[0])
    for weight in _BATCH_WEIGHTS:
        site.bind(weight, 0, vector, "through")
    return rest + site.out(vector, axes[0])


def layer_norm(site: Site) -> Marks:
    """LayerNormalization: gamma and beta over its axes; its mean counts the kept channels."""
    return _over_axes(site, ("gamma", "beta"))


def _over_axes(site: Site, weights: tuple[str, ...]) -> Marks:
    """A norm whose weights have the shape of the axes that it runs over."""
    axes = _axes(site.layer.axis, len(site.in_shapes[0]))
    if axes != sorted(axes) and set(axes) & set(site.inputs[0].axes):
        # Keras 3 sorts axes as they are written, and then reads the weights in another order.
        return site.block_inputs("has negative and positive axes, which mixes up its weights")[0]
    for position in reversed(range(len(axes))):
        vector, _ = _refreshed(site).split(axes[position])
        for weight in weights:
            site.bind(weight, position, vector, "through")
        site.counts(vector)
    return _refreshed(site).inputs[0]


def _refreshed(site: Site) -> Site:
    """The site with the ties that its own rule made."""
    site.inputs[0] = site.inputs[0].resolved(site.table.labels)
    return site


def rms_norm(site: Site) -> Marks:
    """RMSNormalization: scale over its axes; the mean square counts the kept channels."""
    return _over_axes(site, ("scale",))


def unit_norm(site: Site) -> Marks:
    """UnitNormalization: the length over its axes; a channel that is gone adds nothing."""
    return site.inputs[0]


def group_norm(site: Site) -> Marks:
    """GroupNormalization: every group loses the same positions, its mean counts the kept ones."""
    axis = site.layer.axis % len(site.in_shapes[0])
    labels = site.only(axis, "normalizes over the axis that is pruned")
    width = labels.shape[-1]
    groups = width if site.layer.groups == -1 else site.layer.groups
    if groups == width:
        if site.layer.groups != -1:
            site.size("groups", labels)
    else:
        table = labels.reshape(*labels.shape[:-1], groups, -1)
        site.tie(table, table[..., :1, :])
        site.counts(labels)
    for weight in ("gamma", "beta"):
        site.bind(weight, 0, labels, "through")
    return site.out(labels, axis)


def layer_scale(site: Site) -> Marks:
    """LayerScale (ConvNeXt): one factor a channel."""
    labels, rest = site.split(-1)
    site.bind("gamma", 0, labels, "through")
    site.size("projection_dim", labels)
    return rest + site.out(labels, len(site.in_shapes[0]) - 1)


def normalization(site: Site) -> Marks:
    """Normalization: fixed statistics of the data; made for inputs, whose channels stay."""
    if site.inputs[0].axes:
        site.block_inputs("normalizes by statistics that were computed from data")
    return site.inputs[0]


def spectral_normalization(site: Site) -> Marks | list[Marks]:
    """SpectralNormalization: the layer inside; at inference its kernel is used as it is."""
    from tfedge.graph.registry import rule_for  # the table names this module's rules

    layer = site.layer.layer
    result = rule_for(layer)(site.within(layer, "layer", site.inputs))
    kernel = layer.kernel if hasattr(layer, "kernel") else layer.embeddings
    last = len(kernel.shape) - 1
    number = next(i for i, w in enumerate(site.owner.layer.weights) if w is kernel)
    bound = site.table.bindings.get((site.owner.name, number, last))
    if bound is not None:
        site.bind("vector_u", 1, bound.labels, "through")
    return result
