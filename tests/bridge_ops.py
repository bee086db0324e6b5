"""`keras.ops` calls and TensorFlow functions inside functional models: group -> name -> OpCase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.sessions import fresh

IMAGE, SEQUENCE, VECTOR = (4, 6, 8), (5, 6), (8,)
CONSTANT = np.linspace(0.5, 1.5, 8).astype("float32")


@dataclass(frozen=True)
class OpCase:
    """`build(o, *inputs)` with o = keras.ops or tensorflow; the inputs are floats of `shapes`."""

    build: Callable[..., Any]
    shapes: tuple[tuple, ...] = (IMAGE,)


def one(**cases: Callable[..., Any]) -> dict[str, OpCase]:
    """Cases on one image-like tensor."""
    return {k: OpCase(v) for k, v in cases.items()}


def two(**cases: Callable[..., Any]) -> dict[str, OpCase]:
    """Cases on two tensors of one shape."""
    return {k: OpCase(v, (IMAGE, IMAGE)) for k, v in cases.items()}


def sequences(**cases: Callable[..., Any]) -> dict[str, OpCase]:
    """Cases on two sequences [5, 6]."""
    return {k: OpCase(v, (SEQUENCE, SEQUENCE)) for k, v in cases.items()}


arithmetic = one(
    scalar_right=lambda o, x: (x + 1) * 2.5 - 0.5,
    scalar_left=lambda o, x: 1 - 2 * x,
    divided=lambda o, x: 2 / (x + 10) / 3,
    power=lambda o, x: x**2,
    power_left=lambda o, x: 2.0**x,
    negative=lambda o, x: -abs(x),
    floor_divided=lambda o, x: x // 0.5,
    modulo=lambda o, x: x % 0.7,
    array_right=lambda o, x: x * CONSTANT,
    array_double=lambda o, x: x / CONSTANT.astype("float64"),
    array_int=lambda o, x: x + np.arange(8, dtype="int32"),
    same_twice=lambda o, x: x * x + x,
) | two(
    sum=lambda o, x, y: x + y,
    difference=lambda o, x, y: x - y,
    product=lambda o, x, y: x * y,
    quotient=lambda o, x, y: x / (y + 10.0),
    maximum=lambda o, x, y: o.maximum(x, y) + o.minimum(x, 0.0),
    chain=lambda o, x, y: o.square(x - y) * 0.5 + o.multiply(x, 3.0),
    divide_no_nan=lambda o, x, y: o.divide_no_nan(x, o.relu(y)),
    arctan2=lambda o, x, y: o.arctan2(x, y),
)  # fmt: skip
arithmetic |= {
    "broadcast": OpCase(lambda o, x, y: x * y + y, (IMAGE, (1, 1, 8))),
    "broadcast_rank": OpCase(lambda o, x, y: x * y[:, None, None], (IMAGE, VECTOR)),
}

comparison = two(
    where=lambda o, x, y: o.where(x > y, x, y * 2),
    where_scalar=lambda o, x, y: o.where(o.greater_equal(x, 0.0), x, -1.0),
    less=lambda o, x, y: o.cast(o.less(x, y), "float32"),
    equal=lambda o, x, y: o.cast(o.equal(o.round(x), o.round(y)), "float32"),
    not_equal=lambda o, x, y: o.cast(o.not_equal(o.sign(x), o.sign(y)), "int32"),
    logic=lambda o, x, y: o.cast(
        o.logical_and(x > 0, o.logical_or(y <= 0, o.logical_not(x < 1))), "float32"),
    any_all=lambda o, x, y: o.cast(o.any(x > 1, axis=-1), "float32")
    + o.cast(o.all(y < 1, axis=-1), "float32"),
    argmax=lambda o, x, y: o.argmax(x, axis=-1),
    argmin_kept=lambda o, x, y: o.argmin(x, axis=1, keepdims=True),
    sort=lambda o, x, y: o.sort(x, axis=-1),
    top_k=lambda o, x, y: o.top_k(x, 3)[0],
    isfinite=lambda o, x, y: o.where(o.isfinite(o.log(x)), x, 0.0),
)  # fmt: skip

elementwise = one(
    **{
        name: (lambda o, x, name=name: getattr(o, name)(x))
        for name in "abs exp expm1 sin cos tan tanh sinh cosh arctan arcsinh floor ceil round sign "
        "square erf sigmoid relu relu6 silu softplus softsign elu selu gelu hard_sigmoid hard_silu "
        "leaky_relu log_sigmoid celu hard_tanh hard_shrink soft_shrink tanh_shrink squareplus "
        "log_softmax softmax glu sparsemax stop_gradient copy".split()
    },
    **{
        name: (lambda o, x, name=name: getattr(o, name)(o.abs(x) + 0.5))
        for name in "log log1p log2 log10 sqrt rsqrt reciprocal".split()
    },
    clip=lambda o, x: o.clip(x, -0.5, 1.0),
    leaky_slope=lambda o, x: o.leaky_relu(x, negative_slope=0.3),
    gelu_exact=lambda o, x: o.gelu(x, approximate=False),
    elu_alpha=lambda o, x: o.elu(x, alpha=0.5),
    softmax_axis=lambda o, x: o.softmax(x, axis=1) + o.log_softmax(x, axis=2),
    cast=lambda o, x: o.cast(x * 3, "int32"),
    half=lambda o, x: o.cast(o.cast(x, "float16") * 2, "float32"),
    mixed=lambda o, x: o.cast(x, "float16") + x,
    int_mean=lambda o, x: o.mean(o.cast(x * 5, "int32"), axis=-1),
    zeros=lambda o, x: o.zeros_like(x) + o.ones_like(x) * 2.0,
    nan_to_num=lambda o, x: o.nan_to_num(o.log(x)),
)  # fmt: skip

reduction = one(
    **{
        name: (lambda o, x, name=name: getattr(o, name)(x, axis=(1, 2), keepdims=True))
        for name in "mean sum max min prod var std".split()
    },
    mean_axis=lambda o, x: o.mean(x, axis=-1),
    mean_negative_axes=lambda o, x: o.mean(x, axis=(-1, -2)),
    sum_list=lambda o, x: o.sum(x, axis=[1, 3]),
    logsumexp=lambda o, x: o.logsumexp(x, axis=-1, keepdims=True),
    norm=lambda o, x: o.norm(x, axis=-1, keepdims=True),
    normalize=lambda o, x: o.normalize(x, axis=-1),
    standardized=lambda o, x: (x - o.mean(x, axis=-1, keepdims=True))
    / o.sqrt(o.var(x, axis=-1, keepdims=True) + 1e-3),
    moments=lambda o, x: list(o.moments(x, axes=(1, 2))),
    cumsum=lambda o, x: o.cumsum(x, axis=1),
    median=lambda o, x: o.median(x, axis=-1),
    average=lambda o, x: o.average(x, axis=-1),
    count=lambda o, x: o.count_nonzero(x > 0, axis=-1),
)  # fmt: skip

shapes = one(
    reshape=lambda o, x: o.reshape(x, (-1, 24, 8)),
    flatten=lambda o, x: o.reshape(x, (-1, 4 * 6 * 8)),
    transpose=lambda o, x: o.transpose(x, (0, 3, 1, 2)),
    swapaxes=lambda o, x: o.swapaxes(x, 1, -1),
    moveaxis=lambda o, x: o.moveaxis(x, -1, 1),
    moveaxes=lambda o, x: o.moveaxis(x, (1, 2), (2, 3)),
    expand=lambda o, x: o.expand_dims(x, 1),
    expand_many=lambda o, x: o.expand_dims(x, (1, -1)),
    squeeze=lambda o, x: o.squeeze(x[:, :1], 1),
    squeeze_many=lambda o, x: o.squeeze(x[:, :1, :1], axis=(1, 2)),
    pad=lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
    pad_reflect=lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"),
    pad_value=lambda o, x: o.pad(
        x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="constant", constant_values=3.0),
    repeat=lambda o, x: o.repeat(x, 2, axis=1),
    tile=lambda o, x: o.tile(x, (1, 2, 1, 3)),
    flip=lambda o, x: o.flip(x, axis=2),
    roll=lambda o, x: o.roll(x, 2, axis=1),
    take=lambda o, x: o.take(x, [2, 0, -1], axis=1),
    take_array=lambda o, x: o.take(x, np.array([1, 1]), axis=-1),
    broadcast_to=lambda o, x: o.broadcast_to(x[:, :1] * 1.0, (3, 4, 6, 8)),
    diagonal=lambda o, x: o.diagonal(x, axis1=1, axis2=2),
    tril=lambda o, x: o.tril(x),
    full_like=lambda o, x: o.full_like(x, 2.0) + x,
    slice=lambda o, x: o.slice(x, (0, 1, 0, 2), (3, 2, 6, 4)),
)  # fmt: skip

joining = two(
    concatenate=lambda o, x, y: o.concatenate([x, y, x], axis=-1),
    concatenate_axis=lambda o, x, y: o.concatenate((x, y), axis=1),
    stack=lambda o, x, y: o.stack([x, y], axis=2),
    unstack=lambda o, x, y: o.unstack(x, axis=1)[2] + o.unstack(y, axis=1)[0],
    split=lambda o, x, y: o.split(x, 2, axis=-1)[1] * o.split(y, 4, axis=3)[0][..., :1],
    split_sections=lambda o, x, y: o.split(x, [1, 3, 6], axis=-1)[2],
    hstack=lambda o, x, y: o.hstack([x, y]),
    append=lambda o, x, y: o.append(x, y, axis=1),
)

indexing = one(
    last_channels=lambda o, x: x[..., 2:5],
    steps=lambda o, x: x[:, ::2, 1::3],
    backwards=lambda o, x: x[:, ::-1, :, ::-2],
    integer=lambda o, x: x[:, 1],
    negative=lambda o, x: x[:, -1, -2:],
    new_axes=lambda o, x: x[:, None, ..., np.newaxis],
    ellipsis_middle=lambda o, x: x[:, 1, ..., 3],
)

products = sequences(
    matmul=lambda o, x, y: o.matmul(x, o.transpose(y, (0, 2, 1))),
    operator=lambda o, x, y: x @ o.swapaxes(y, 1, 2),
    matmul_constant=lambda o, x, y: o.matmul(x, np.ones((6, 3), "float32")),
    dot=lambda o, x, y: o.dot(x, np.ones((6, 3), "float32")),
    einsum=lambda o, x, y: o.einsum("bij,bkj->bik", x, y),
    einsum_constant=lambda o, x, y: o.einsum("bij,jk->bik", x, np.ones((6, 2), "float32")),
    tensordot=lambda o, x, y: o.tensordot(x, np.ones((6, 2), "float32"), axes=1),
    attention=lambda o, x, y: o.matmul(
        o.softmax(o.matmul(x, o.transpose(y, (0, 2, 1))) / 6**0.5), y),
    one_hot=lambda o, x, y: o.one_hot(o.argmax(x, axis=-1), 6),
    dot_product_attention=lambda o, x, y: o.dot_product_attention(
        x[:, :, None], y[:, :, None], y[:, :, None]),
)  # fmt: skip

images = one(
    resize=lambda o, x: o.image.resize(x, (8, 3)),
    resize_nearest=lambda o, x: o.image.resize(x, (8, 12), interpolation="nearest"),
    resize_bicubic=lambda o, x: o.image.resize(x, (2, 3), interpolation="bicubic", antialias=True),
    max_pool=lambda o, x: o.max_pool(x, 2, strides=1, padding="same"),
    average_pool=lambda o, x: o.average_pool(x, (2, 3)),
    conv=lambda o, x: o.conv(x, np.ones((3, 3, 8, 2), "float32"), padding="same"),
    depthwise=lambda o, x: o.depthwise_conv(x, np.ones((3, 3, 8, 2), "float32")),
    depth_to_space=lambda o, x: o.depth_to_space(x, 2),
    space_to_depth=lambda o, x: o.space_to_depth(x, 2),
    patches=lambda o, x: o.image.extract_patches(x, 2),
)

OPS: dict[str, dict[str, OpCase]] = {
    "arithmetic": arithmetic, "comparison": comparison, "elementwise": elementwise,
    "reduction": reduction, "shapes": shapes, "joining": joining, "indexing": indexing,
    "products": products, "images": images,
}  # fmt: skip

# The same from tf_keras: operators on tensors are those of `arithmetic` and `indexing`.
tf_elementwise = one(
    **{
        name: (lambda o, x, name=name: getattr(o.nn, name)(x))
        for name in "relu relu6 elu selu silu swish gelu leaky_relu sigmoid tanh softplus softsign "
        "softmax log_softmax".split()
    },
    **{
        f"math_{name}": (lambda o, x, name=name: getattr(o.math, name)(o.abs(x) + 0.5))
        for name in "abs exp expm1 log log1p sqrt rsqrt square reciprocal sin cos tan tanh sinh "
        "cosh atan sigmoid softplus sign floor ceil round erf negative log_sigmoid "
        "reciprocal_no_nan".split()
    },
    leaky=lambda o, x: o.nn.leaky_relu(x, 0.3),
    gelu_approximate=lambda o, x: o.nn.gelu(x, approximate=True),
    softmax_axis=lambda o, x: o.nn.softmax(x, axis=1),
    softmax_k=lambda o, x: o.nn.log_softmax(x, 2),
    clip=lambda o, x: o.clip_by_value(x, -0.5, 1.0),
    clip_keywords=lambda o, x: o.clip_by_value(x, clip_value_max=1.0, clip_value_min=-1.0),
    cast=lambda o, x: o.cast(x * 3, o.int32),
    half=lambda o, x: o.cast(o.cast(x, "float16") * 2, o.float32),
    identity=lambda o, x: o.identity(x) + o.stop_gradient(x),
    like=lambda o, x: o.zeros_like(x) + o.ones_like(x) * 2.0,
    l2=lambda o, x: o.math.l2_normalize(x, axis=-1),
    l2_all=lambda o, x: o.nn.l2_normalize(x, [1, 2], epsilon=0.1),
    bias_add=lambda o, x: o.nn.bias_add(x, CONSTANT),
)  # fmt: skip

tf_binary = one(array_left=lambda o, x: CONSTANT - x) | two(
    **{
        name: (lambda o, x, y, name=name: getattr(o.math, name)(x, y))
        for name in "add subtract multiply divide truediv maximum minimum squared_difference atan2 "
        "divide_no_nan floordiv floormod".split()
    },
    pow=lambda o, x, y: o.pow(o.abs(x) + 0.5, y),
    where=lambda o, x, y: o.where(x > y, x, y),
    comparisons=lambda o, x, y: o.cast(
        o.logical_and(o.greater(x, y), o.logical_not(o.equal(x, y))), o.float32),
    orders=lambda o, x, y: o.cast(x >= 0.5, "float32") + o.cast(y < 0.1, "float32"),
    add_n=lambda o, x, y: o.add_n([x, y, x]),
    concat=lambda o, x, y: o.concat([x, y], -1),
    concat_axis=lambda o, x, y: o.concat(axis=1, values=[x, y]),
    stack=lambda o, x, y: o.stack([x, y], axis=1),
    unstack=lambda o, x, y: o.unstack(x, axis=1)[1],
    split=lambda o, x, y: o.split(x, 4, axis=-1)[2],
    split_sizes=lambda o, x, y: o.split(x, [1, 3, 4], axis=-1)[1],
    name_given=lambda o, x, y: o.add(x, y, name="my_sum"),
)  # fmt: skip

tf_reduction = one(
    **{
        name: (lambda o, x, name=name: getattr(o.math, name)(x, axis=[1, 2], keepdims=True))
        for name in "reduce_mean reduce_sum reduce_max reduce_min reduce_prod reduce_variance "
        "reduce_std reduce_logsumexp".split()
    },
    mean=lambda o, x: o.reduce_mean(x, -1),
    any=lambda o, x: o.cast(o.reduce_any(x > 1, axis=-1), "float32"),
    argmax=lambda o, x: o.argmax(x, axis=-1),
    argmin=lambda o, x: o.argmin(x, 1, o.int32),
    norm=lambda o, x: o.norm(x, axis=-1),
    cumsum=lambda o, x: o.cumsum(x, axis=1),
    moments=lambda o, x: list(o.nn.moments(x, [1, 2])),
)

tf_shapes = one(
    reshape=lambda o, x: o.reshape(x, [-1, 24, 8]),
    reshape_dynamic=lambda o, x: o.reshape(x, [o.shape(x)[0], 4, 48]),
    reshape_stacked=lambda o, x: o.reshape(x, o.stack([o.shape(x)[0], o.shape(x)[1] * 6, 8])),
    reshape_like=lambda o, x: o.reshape(o.reshape(x, [-1, 192]), o.shape(x)),
    flip_image=lambda o, x: o.image.flip_left_right(x),
    top_k=lambda o, x: o.math.top_k(x, 2)[0] + o.sort(x)[..., :2],
    conv1d=lambda o, x: o.nn.conv1d(x[:, 0], np.ones((2, 8, 3), "float32"), 1, "SAME"),
    transpose=lambda o, x: o.transpose(x, [0, 3, 1, 2]),
    expand=lambda o, x: o.expand_dims(x, axis=1),
    squeeze=lambda o, x: o.squeeze(x[:, :1], axis=1),
    squeeze_list=lambda o, x: o.squeeze(x[:, :1, :1], [1, 2]),
    pad=lambda o, x: o.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    pad_reflect=lambda o, x: o.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], mode="REFLECT"),
    pad_value=lambda o, x: o.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=2.0),
    tile=lambda o, x: o.tile(x, [1, 2, 1, 3]),
    repeat=lambda o, x: o.repeat(x, 2, axis=1),
    reverse=lambda o, x: o.reverse(x, axis=[1, 2]),
    roll=lambda o, x: o.roll(x, shift=2, axis=1),
    roll_many=lambda o, x: o.roll(x, shift=[1, 2], axis=[1, 2]),
    gather=lambda o, x: o.gather(x, [2, 0], axis=1),
    one_hot=lambda o, x: o.one_hot(o.argmax(x, -1), 8),
    slice=lambda o, x: o.slice(x, [0, 1, 0, 2], [-1, 2, 6, 4]),
    strided=lambda o, x: x[:, 1:3, ::-1, ..., None],
    depth_to_space=lambda o, x: o.nn.depth_to_space(x, 2),
    space_to_depth=lambda o, x: o.nn.space_to_depth(x, 2),
    resize=lambda o, x: o.image.resize(x, (8, 3)),
    resize_nearest=lambda o, x: o.image.resize(x, [8, 12], method="nearest"),
    max_pool=lambda o, x: o.nn.max_pool2d(x, 2, 2, "VALID"),
    avg_pool=lambda o, x: o.nn.avg_pool2d(x, (2, 3), 1, padding="SAME"),
    conv=lambda o, x: o.nn.conv2d(x, np.ones((3, 3, 8, 2), "float32"), 1, "SAME"),
    depthwise=lambda o, x: o.nn.depthwise_conv2d(
        x, np.ones((3, 3, 8, 1), "float32"), [1, 1, 1, 1], "SAME"),
)  # fmt: skip

tf_products = sequences(
    matmul=lambda o, x, y: o.matmul(x, y, transpose_b=True),
    operator=lambda o, x, y: x @ o.transpose(y, [0, 2, 1]),
    einsum=lambda o, x, y: o.einsum("bij,bkj->bik", x, y),
    tensordot=lambda o, x, y: o.tensordot(x, np.ones((6, 2), "float32"), axes=1),
)

TF_OPS: dict[str, dict[str, OpCase]] = {
    "arithmetic": {k: v for k, v in arithmetic.items()
                   if k not in ("maximum", "chain", "divide_no_nan", "arctan2", "array_double",
                                "array_int")},
    "indexing": indexing,
    "elementwise": tf_elementwise, "binary": tf_binary, "reduction": tf_reduction,
    "shapes": tf_shapes, "products": tf_products,
}  # fmt: skip


def build_ops(
    lib: Any, o: Any, cases: dict[str, OpCase]
) -> tuple[Any, list[np.ndarray], list[str]]:
    """One model of many cases side by side, each after a layer.

    Returns:
        The model, its inputs, and the name of the case of each output.
    """
    fresh(lib)
    tensors, results, arrays, names = [], [], [], []
    for number, (name, case) in enumerate(cases.items()):
        given = [lib.Input(s, name=f"in{number}_{n}") for n, s in enumerate(case.shapes)]
        made = case.build(o, *(lib.layers.Rescaling(1.5, offset=0.25)(t) for t in given))
        flat = list(made) if isinstance(made, (list, tuple)) else [made]
        tensors += given
        arrays += op_inputs(case)
        results += flat
        names += [name] * len(flat)
    return lib.Model(tensors, results), arrays, names


def op_inputs(case: OpCase, batch: int = 3) -> list[np.ndarray]:
    """Random float inputs."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=(batch, *s)).astype("float32") for s in case.shapes]
