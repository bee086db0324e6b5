"""Layers of one or three dimensions, in time or on other axes, as the two-dimensional ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.graph.copying import copy_layer
from tfedge.graph.rewrite import Piece
from tfedge.quant.composite_norms import unit
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers
Form = Callable[[Sketch], "list[Piece]"]


def channels_last(s: Sketch) -> None:
    """Raises NoForm for a layer whose channels come first."""
    if getattr(s.layer, "data_format", "channels_last") != "channels_last":
        raise NoForm("channels_first is not what TFLite's kernels take; use channels_last")


def _lifted(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A 1-D layer's config for a 2-D one of height 1."""
    new = dict(config)
    for name in names:
        value = new.get(name)
        if value is not None:
            new[name] = (1, int(np.ravel(value)[0]))
    return new


def conv_1d_transpose(s: Sketch) -> list[Piece]:
    """Conv1DTranspose: a 2-D one of height 1."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    names = ("kernel_size", "strides", "dilation_rate", "output_padding")
    config = {**_lifted(layer.get_config(), names), "name": s.name("conv")}
    if config.get("output_padding") is not None:
        config["output_padding"] = (0, config["output_padding"][1])
    weights = [w[None] if n == 0 else w for n, w in enumerate(layer.get_weights())]
    y = s.add(_L.Conv2DTranspose.from_config(config), s.reshape(x, (1, *x.shape[1:]), "in"),
              weights=weights)  # fmt: skip
    return s.piece(s.reshape(y, y.shape[2:], "out"))


def depthwise_1d(s: Sketch) -> list[Piece]:
    """DepthwiseConv1D: a 2-D one of height 1, whose strides must be equal on both axes."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    config = _lifted(layer.get_config(), ("kernel_size", "dilation_rate"))
    stride = int(np.ravel(layer.strides)[-1])
    config |= {"strides": (stride, stride), "name": s.name("conv")}
    if layer.padding == "causal":
        left = (int(layer.kernel_size[0]) - 1) * int(np.ravel(layer.dilation_rate)[-1])
        x = s.add(_L.ZeroPadding1D((left, 0), name=s.name("pad")), x)
        config["padding"] = "valid"
    weights = [w[None] if n == 0 else w for n, w in enumerate(layer.get_weights())]
    new = _L.DepthwiseConv2D.from_config(config)
    y = s.add(new, s.reshape(x, (1, *x.shape[1:]), "in"), weights=weights)
    return s.piece(s.reshape(y, y.shape[2:], "out"))


def merged_batch(s: Sketch, x: Any, suffix: str) -> Any:
    """[B, T, ...] -> [B*T, ...]."""
    return s.op(tf.reshape, suffix, x, (-1, *s.known(x)[1:]))


def parted_batch(s: Sketch, x: Any, steps: int, suffix: str) -> Any:
    """[B*T, ...] -> [B, T, ...]."""
    return s.op(tf.reshape, suffix, x, (-1, steps, *s.known(x)))


def time_distributed(s: Sketch) -> list[Piece]:
    """TimeDistributed: the steps join the batch, and part again."""
    (x,) = s.inputs
    inner = s.layer.layer
    if s.masked or s.call.kwargs.get("mask") is not None:
        raise NoForm("masks have no integer form")
    if hasattr(inner, "layers") or hasattr(inner, "layer"):
        raise NoForm("it holds a model or a wrapper; call that on merged steps instead")
    steps = s.known(x)[0]
    flat = merged_batch(s, x, "steps_in")
    y = s.add(copy_layer(inner, name=s.name("inner")), flat, weights=inner.get_weights() or None)
    return s.piece(parted_batch(s, y, steps, "steps_out"))


def conv_3d(s: Sketch) -> list[Piece]:
    """Conv3D: a 2-D one on the depth's shifts, which are joined along the channels."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    if layer.groups != 1:
        raise NoForm("a grouped Conv3D has no integer form")
    depth, height, width = (int(k) for k in layer.kernel_size)
    stride, spread = int(layer.strides[0]), int(layer.dilation_rate[0])
    before = s.known(x)[0]
    reach = (depth - 1) * spread + 1
    if layer.padding == "same":
        after = -(-before // stride)
        total = max((after - 1) * stride + reach - before, 0)
        pads = ((total // 2, total - total // 2), (0, 0), (0, 0))
        x = s.add(_L.ZeroPadding3D(pads, name=s.name("pad")), x)
    else:
        after = (before - reach) // stride + 1
    shifts = []
    for k in range(depth):
        cut = slice(k * spread, k * spread + (after - 1) * stride + 1, stride)
        shifts.append(s.cut(x, (slice(None), cut), f"shift_{k}"))
    flat = [merged_batch(s, t, f"flat_{k}") for k, t in enumerate(shifts)]
    joined = flat[0]
    if depth > 1:
        joined = s.add(_L.Concatenate(name=s.name("joined")), *flat)
    kernel, *bias = layer.get_weights()
    kernel = np.transpose(kernel, (1, 2, 0, 3, 4)).reshape(height, width, -1, layer.filters)
    conv = _L.Conv2D(
        layer.filters, (height, width), strides=tuple(layer.strides[1:]), padding=layer.padding,
        dilation_rate=tuple(layer.dilation_rate[1:]), activation=layer.activation,
        use_bias=layer.use_bias, kernel_regularizer=layer.kernel_regularizer, name=s.name("conv"),
    )  # fmt: skip
    y = s.add(conv, joined, weights=[kernel, *bias])
    return s.piece(parted_batch(s, y, after, "parted"))


def pool_3d(s: Sketch) -> list[Piece]:
    """MaxPooling3D and AveragePooling3D: over height and width, then over the depth."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    kind = _L.MaxPooling2D if isinstance(layer, _L.MaxPooling3D) else _L.AveragePooling2D
    size, strides = layer.pool_size, layer.strides
    plane = kind(size[1:], strides[1:], layer.padding, name=s.name("plane"))
    y = s.add(plane, merged_batch(s, x, "depth_in"))
    inner = s.known(y)
    y = parted_batch(s, y, s.known(x)[0], "depth_out")
    y = s.reshape(y, (y.shape[1], inner[0] * inner[1], inner[2]), "columns")
    depth = kind((size[0], 1), (strides[0], 1), layer.padding, name=s.name("depth"))
    y = s.add(depth, y)
    return s.piece(s.reshape(y, (y.shape[1], *inner), "result"))


def global_pool_3d(s: Sketch) -> list[Piece]:
    """GlobalAveragePooling3D and GlobalMaxPooling3D: over one merged axis."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    *sizes, channels = s.known(x)
    average = isinstance(layer, _L.GlobalAveragePooling3D)
    kind = _L.GlobalAveragePooling1D if average else _L.GlobalMaxPooling1D
    flat = s.reshape(x, (int(np.prod(sizes)), channels), "flat")
    y = s.add(kind(name=s.name("pool")), flat)
    return s.piece(s.reshape(y, (1, 1, 1, channels), "kept") if layer.keepdims else y)


def up_sampling_3d(s: Sketch) -> list[Piece]:
    """UpSampling3D: height and width, then the depth."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    plane = _L.UpSampling2D(layer.size[1:], name=s.name("plane"))
    y = s.add(plane, merged_batch(s, x, "depth_in"))
    inner = s.known(y)
    y = parted_batch(s, y, s.known(x)[0], "depth_out")
    y = s.reshape(y, (y.shape[1], inner[0] * inner[1], inner[2]), "columns")
    y = s.add(_L.UpSampling2D((layer.size[0], 1), name=s.name("depth")), y)
    return s.piece(s.reshape(y, (y.shape[1], *inner), "result"))


def center_crop(s: Sketch) -> list[Piece]:
    """CenterCrop of a larger image."""
    layer, (x,) = s.layer, s.inputs
    height, width, _ = s.known(x)[-3:]
    rest = (height - layer.height, width - layer.width)
    if min(rest) < 0 or len(x.shape) != 4:
        raise NoForm("it enlarges a smaller image")
    cut = tuple((n // 2, n - n // 2) for n in rest)
    return s.piece(s.add(_L.Cropping2D(cut, name=s.name("crop")), x))


def resize(s: Sketch) -> list[Piece]:
    """tf.image.resize as a Resizing layer."""
    (x,) = s.inputs
    named = dict(zip(("images", "size", "method", "preserve_aspect_ratio", "antialias"),
                     s.call.args, strict=False)) | s.call.kwargs  # fmt: skip
    method = named.get("method", "bilinear")
    if len(x.shape) != 4 or named.get("antialias") or named.get("preserve_aspect_ratio"):
        raise NoForm("no kernel resizes with antialiasing or a kept aspect ratio")
    if method not in ("bilinear", "nearest"):
        raise NoForm(f"no kernel resizes by '{method}'")
    height, width = (int(n) for n in named["size"])
    return [Piece(_L.Resizing(height, width, method, name=s.call.name), takes="tensor")]


def custom_scale(s: Sketch) -> list[Piece]:
    """InceptionResNetV2's CustomScaleLayer: a + scale*b."""
    first, second = s.inputs
    return s.piece(s.plus(first, s.affine(second, float(s.layer.scale), suffix="scaled")))


def stack(s: Sketch) -> list[Piece]:
    """tf.stack: a concatenation along a new axis, but of the steps of one layer (see RULES)."""
    makers = {s.site.makers[i].name for i in s.call.inputs if i in s.site.makers}
    if len(makers) == 1 and len(s.call.inputs) > 1:
        return []
    rank = len(s.inputs[0].shape) + 1
    axis = int(s.call.kwargs.get("axis", s.call.args[1] if len(s.call.args) > 1 else 0)) % rank
    if axis == 0:
        raise NoForm("it makes a new first axis")
    opened = []
    for n, x in enumerate(s.inputs):
        shape = list(x.shape[1:])
        opened.append(s.reshape(x, [*shape[: axis - 1], 1, *shape[axis - 1 :]], f"open_{n}"))
    return s.piece(s.add(_L.Concatenate(axis, name=s.name("joined")), *opened))


def _axes(s: Sketch) -> tuple[list[int], bool]:
    named = dict(zip(("input_tensor", "axis", "keepdims"), s.call.args, strict=False))
    named |= s.call.kwargs
    rank = len(s.inputs[0].shape)
    axis = named.get("axis")
    axes = list(range(rank)) if axis is None else [int(a) % rank for a in np.ravel(axis)]
    if 0 in axes:
        raise NoForm("it reduces the batch")
    return sorted(axes), bool(named.get("keepdims"))


def reduce_sum(s: Sketch) -> list[Piece]:
    """tf.reduce_sum: the mean times the count (the int16 SUM differs from kernel to kernel)."""
    (x,) = s.inputs
    axes, keep = _axes(s)
    sizes = [x.shape[a] for a in axes]
    if None in sizes:
        raise NoForm("it sums over an axis of free size; declare it")
    y = s.affine(s.mean(x, axes), float(np.prod(sizes)), suffix="total")
    left = [d for n, d in enumerate(x.shape) if n and (keep or n not in axes)]
    return s.piece(y if keep else s.reshape(y, left or [1], "left"))


def reduce_min(s: Sketch) -> list[Piece]:
    """tf.reduce_min: -max(-x)."""
    (x,) = s.inputs
    axes, keep = _axes(s)
    most = s.op(tf.math.reduce_max, "most", s.affine(x, -1.0), axis=axes, keepdims=keep)
    return s.piece(s.affine(most, -1.0, suffix="least"))


def square(s: Sketch) -> list[Piece]:
    """x*x."""
    return s.piece(s.times(s.inputs[0], s.inputs[0]))


def absolute(s: Sketch) -> list[Piece]:
    """max(x, 0) - min(x, 0)."""
    (x,) = s.inputs
    return s.piece(s.minus(s.relu(x, "above"), s.at_most(x, 0.0, "below")))


def square_root(s: Sketch) -> list[Piece]:
    """X / sqrt(x)."""
    return s.piece(s.times(s.inputs[0], s.rsqrt(s.inputs[0])))


def inverse_root(s: Sketch) -> list[Piece]:
    """1 / sqrt(x)."""
    return s.piece(s.rsqrt(s.inputs[0]))


def _function(name: str) -> Form:
    return lambda s: s.piece(s.tabled(name, s.inputs[0]))


def l2_normalize(s: Sketch) -> list[Piece]:
    """tf.math.l2_normalize along one axis."""
    named = dict(zip(("x", "axis", "epsilon"), s.call.args, strict=False)) | s.call.kwargs
    (x,) = s.inputs
    axes = [int(a) % len(x.shape) for a in np.ravel(named.get("axis", 0))]
    if len(axes) != 1 or axes == [0]:
        raise NoForm("it normalises over the batch, or over several axes")
    return s.piece(unit(s, x, axes[0], float(named.get("epsilon", 1e-12))))


def clip(s: Sketch) -> list[Piece]:
    """clip_by_value with two numbers: a relu whose range ends at their distance, shifted."""
    names = ("t", "clip_value_min", "clip_value_max")
    named = dict(zip(names, s.call.args, strict=False)) | s.call.kwargs
    low, high = named["clip_value_min"], named["clip_value_max"]
    if not all(isinstance(v, (int, float)) for v in (low, high)) or len(s.inputs) != 1:
        raise NoForm("its limits are no numbers")
    if not low < high:
        raise NoForm(f"its limits {low} and {high} leave no room")
    inner = s.affine(s.inputs[0], 1.0, -low, "from_low")
    inner = s.add(_L.ReLU(float(high) - float(low), name=s.name("clipped")), inner)
    return s.piece(s.affine(inner, 1.0, low, "back"))


def repeat_vector(s: Sketch) -> list[Piece]:
    """RepeatVector by upsampling (TILE has no int16 kernel everywhere)."""
    (x,) = s.inputs
    n, size = int(s.layer.n), x.shape[-1]
    y = s.add(_L.UpSampling2D((n, 1), name=s.name("up")), s.reshape(x, (1, 1, size), "open"))
    return s.piece(s.reshape(y, (n, size), "rows"))


def reverse(s: Sketch) -> list[Piece]:
    """tf.reverse by slices of stride -1 (REVERSE_V2 stays float)."""
    (x,) = s.inputs
    rank = len(x.shape)
    given = s.call.kwargs.get("axis", s.call.args[1] if len(s.call.args) > 1 else None)
    axes = [int(a) % rank for a in np.ravel(given)]
    if 0 in axes:
        raise NoForm("it reverses the batch")
    cut = tuple(slice(None, None, -1) if a in axes else slice(None) for a in range(rank))
    return s.piece(s.cut(x, cut, "turned"))


def merge(s: Sketch) -> list[Piece]:
    """Add and its like of more than two tensors, two by two; int16 Add that broadcasts."""
    kind, inputs = type(s.layer), list(s.inputs)
    shapes = {tuple(t.shape[1:]) for t in inputs}
    broadcast = kind in (_L.Add, _L.Average) and s.bits == 16 and len(shapes) > 1
    if len(inputs) < 3 and not broadcast:
        return []
    total = inputs[0]
    for n, x in enumerate(inputs[1:]):
        if kind in (_L.Add, _L.Average):
            total = s.plus(total, x, f"sum_{n}")
        else:
            total = s.add(kind(name=s.name(f"merge_{n}")), total, x)
    if kind is _L.Average:
        total = s.affine(total, 1.0 / len(inputs), suffix="mean")
    return s.piece(total)


SHAPES: dict[type, Form] = {
    _L.Conv1DTranspose: conv_1d_transpose,
    _L.DepthwiseConv1D: depthwise_1d,
    _L.TimeDistributed: time_distributed,
    _L.Conv3D: conv_3d,
    _L.MaxPooling3D: pool_3d,
    _L.AveragePooling3D: pool_3d,
    _L.GlobalAveragePooling3D: global_pool_3d,
    _L.GlobalMaxPooling3D: global_pool_3d,
    _L.UpSampling3D: up_sampling_3d,
    _L.CenterCrop: center_crop,
    _L.RepeatVector: repeat_vector,
    **dict.fromkeys((_L.Add, _L.Average, _L.Multiply, _L.Maximum, _L.Minimum), merge),
}

SHAPE_OPS: dict[str, Form] = {
    "image.resize": resize,
    "stack": stack,
    "math.reduce_sum": reduce_sum,
    "math.reduce_min": reduce_min,
    "math.square": square,
    "math.abs": absolute,
    "math.sqrt": square_root,
    "math.rsqrt": inverse_root,
    "math.exp": _function("exp"),
    "math.log": _function("log"),
    "math.l2_normalize": l2_normalize,
    "linalg.l2_normalize": l2_normalize,
    "clip_by_value": clip,
    "reverse": reverse,
}
