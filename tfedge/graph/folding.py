"""Folding a batch norm into the layer before it: W' = s W, b' = s b + t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.graph.copying import copy_layer
from tfedge.graph.rewrite import Piece, Rewriter
from tfedge.graph.trace import Call


@dataclass(frozen=True)
class _Kernel:
    """Where a layer keeps what it multiplies with: attribute and axis of the output channels."""

    attribute: str
    axis: int


_CONV, _TRANSPOSE = _Kernel("kernel", -1), _Kernel("kernel", -2)
_POINTWISE, _DEPTHWISE = _Kernel("pointwise_kernel", -1), _Kernel("depthwise_kernel", -2)
FOLDABLE: dict[str, _Kernel] = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D"), _CONV),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _TRANSPOSE),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _POINTWISE),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _DEPTHWISE),
}
"""Layers that a following batch norm can be folded into, by class name of either Keras."""


def affine(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inference form of a batch norm, y = scale * x + shift; both float32 [C].

    scale = gamma / sqrt(variance + epsilon), shift = beta - mean * scale.
    """
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    shift = -mean * scale
    return scale, shift + np.asarray(norm.beta) if norm.center else shift


def find_foldable(site: Rewriter, into: Any = None) -> dict[str, Call]:
    """Batch norms that can be folded, by name of the layer that they go into.

    Args:
        site: The rewriter.
        into: Optional predicate on the layer that would take the batch norm.

    Returns:
        Calls of batch norms whose only input is a linear layer of `FOLDABLE` that nothing else
        reads, along the layer's channel axis.
    """
    found: dict[str, Call] = {}
    for call in site.graph.calls:
        if type(call.layer).__name__ != "BatchNormalization":
            continue
        before = site.sole_maker(call)
        if before is None or type(before.layer).__name__ not in FOLDABLE:
            continue
        native = type(before.layer).__module__.split(".")[0] in ("keras", "tf_keras")
        if not native or not _same_axis(call, before, site.rank(call)):
            continue
        if into is None or into(before.layer):
            found[before.name] = call
    return found


def _same_axis(norm: Call, before: Call, rank: int) -> bool:
    axis = np.ravel(norm.layer.axis)
    first = getattr(before.layer, "data_format", None) == "channels_first"
    return len(axis) == 1 and int(axis[0]) % rank == (1 if first else rank - 1)


def folded(call: Call, norm: Call) -> list[Piece]:
    """The layer with the batch norm in it.

    Args:
        call: A call of a layer of `FOLDABLE`.
        norm: The batch norm's call.
    """
    return fold_affine(call, *affine(norm.layer))


def fold_affine(call: Call, scale: np.ndarray, shift: np.ndarray) -> list[Piece]:
    """The layer that computes scale * y + shift of what the layer gives.

    Args:
        call: A call of a layer of `FOLDABLE` without an activation.
        scale: float32 [C].
        shift: float32 [C].
    """
    layer = call.layer
    place = FOLDABLE[type(layer).__name__]
    names = ("kernel", "depthwise_kernel", "pointwise_kernel", "bias")
    variables = {n: v for n in names if (v := getattr(layer, n, None)) is not None}
    attribute = place.attribute if place.attribute in variables else "kernel"
    values = {n: np.asarray(v) for n, v in variables.items() if v is not variables[attribute]}
    kernel = np.asarray(variables[attribute])
    values[attribute] = kernel * _shaped(scale, kernel.shape, place)
    values["bias"] = shift + (values["bias"] * scale if "bias" in values else 0.0)
    changes = {"use_bias": True}
    if "activity_regularizer" in layer.get_config():
        changes["activity_regularizer"] = None  # it was on the values before the batch norm
    order = [n for n in ("depthwise_kernel", "kernel", "pointwise_kernel", "bias") if n in values]
    weights = [values[n].astype(kernel.dtype) for n in order]
    return [Piece(copy_layer(layer, changes, call.name), weights, call.name)]


def _shaped(scale: np.ndarray, kernel: tuple[int, ...], place: _Kernel) -> np.ndarray:
    """The scale in the kernel's shape; a depthwise kernel ends in [C, multiplier]."""
    if place is _DEPTHWISE:
        return scale.reshape(kernel[-2:])
    shape = [1] * len(kernel)
    shape[place.axis] = -1
    return scale.reshape(shape)
