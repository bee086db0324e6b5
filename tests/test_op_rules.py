"""Every operation in the tables, in a model of its own: cut exactly, or blocked for a reason."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from tests.architectures import kit, randomize
from tests.reference import Reference, difference, random_cuts
from tests.sessions import fresh
from tests.test_architectures import OUTPUT, run
from tfedge._keras import library, tf
from tfedge.graph import analyse, cut
from tfedge.graph.op_tables import KERAS_OPS, TF_OPS

K = keras.ops
EIGHT = np.linspace(0.5, 1.5, 8).astype("float32")
ORDER = [3, 1, 0, 2, 7, 6, 5, 4]


def model_of(flavour, function, shape=(4, 8), batch=None):
    """Dense, the operation, a head on each result."""
    k = kit(flavour)
    fresh(library(flavour))
    i = k.Input((*shape[:-1], 3), batch_size=batch)
    x = k.L.Dense(shape[-1], name="made")(i)
    outputs = []
    for t in tf.nest.flatten(function(x)):
        t = t if (t.dtype if isinstance(t.dtype, str) else t.dtype.name) == "float32" else (
            k.ops.cast(t, "float32"))  # fmt: skip
        outputs.append(k.L.Dense(2)(t if len(t.shape) == 2 else k.L.Flatten()(t)))
    return randomize(k.Model(i, outputs))


def check(flavour, function, shape=(4, 8), blocked="", batch=None):
    model = model_of(flavour, function, shape, batch)
    x = [np.random.default_rng(0).normal(size=(3, *shape[:-1], 3)).astype("float32")]
    analysis = analyse(model)
    group = next(g for g in analysis.groups if g.name == "made")
    if blocked:
        assert blocked in group.blocked
    else:
        assert not group.blocked
        assert {g.name: g.blocked for g in analysis.groups if g.blocked not in ("", OUTPUT)} == {}
    cuts = random_cuts(analysis, 1)
    assert ("made" in cuts) == (not blocked)
    assert difference(run(cut(model, cuts, analysis), x), Reference(analysis, cuts)(x)) < 1e-4


def operation(name):
    """A Keras operation class of the tables."""
    for module in ("numpy", "nn", "math", "core", "linalg"):
        found = getattr(importlib.import_module(f"keras.src.ops.{module}"), name, None)
        if found is not None:
            return found
    activations = importlib.import_module("keras.src.activations.activations")
    return getattr(activations, name, None)


# Operations that take more than a tensor, an axis or two tensors: examples follow below.
WITH_EXAMPLES = set(
    "Split ArraySplit Reshape Transpose Swapaxes Moveaxis ExpandDims Squeeze Ravel Concatenate "
    "Append Hstack Dstack Stack Unstack GetItem Slice Take Repeat Tile Flip BroadcastTo Tril Triu "
    "LayerNorm RMSNorm Glu Cumsum Cumprod Pad DepthToSpace SpaceToDepth ExtractPatches Resize "
    "CropImages PadImages GaussianBlur AffineTransform PerspectiveTransform AveragePool MaxPool "
    "AdaptiveAveragePool AdaptiveMaxPool Matmul Einsum Tensordot DotProductAttention TopK Clip "
    "Average Where Argmax Argmin Argsort Argpartition Sort Roll Nanargmax Nanargmin Cast "
    "SaturateCast FullLike Threshold ConvertToTensor Softmax LogSoftmax Sparsemax Normalize "
    "Moments Median Norm BitwiseNot BitwiseInvert BitwiseAnd BitwiseOr BitwiseXor Imag Angle "
    "Arccosh".split()
)


def plain(name):
    """A call of an operation that takes one or two tensors and nothing else, or None."""
    found = operation(name)
    if found is None or name in WITH_EXAMPLES:
        return None
    rule = KERAS_OPS[name].__name__
    if rule == "unary":
        return lambda x: found()(x)
    if rule == "broadcasting":
        return lambda x: found()(x, x * 0.5 + 1.0)
    return None


PLAIN = [n for n in KERAS_OPS if plain(n)]


@pytest.mark.parametrize("name", PLAIN)
def test_elementwise_keras_operations(name):
    def safe(x):  # in the domain of logarithms, roots and inverse functions
        return plain(name)(K.sigmoid(x) * 0.8 + 0.1)

    check("keras3", safe)


@pytest.mark.parametrize(
    "name", [n for n, r in KERAS_OPS.items() if r.__name__ == "reduce_op" and n not in ("Moments",)]
)
def test_reducing_keras_operations(name):
    function = {"Logsumexp": K.logsumexp, "Amax": K.amax, "Amin": K.amin, "CountNonzero":
                K.count_nonzero, "Ptp": K.ptp}.get(name)  # fmt: skip
    function = function or getattr(K, name.lower())
    check("keras3", lambda x: function(x, axis=-1))
    check("keras3", lambda x: function(x, axis=1))


EXAMPLES3 = {
    "split": lambda x: K.split(x, [2, 5], -1),
    "split_steps": lambda x: K.split(x, 2, 1),
    "swapaxes": lambda x: K.swapaxes(x, 1, 2),
    "moveaxis": lambda x: K.moveaxis(x, -1, 1),
    "transpose": lambda x: K.transpose(x, (0, 2, 1)),
    "expand_dims": lambda x: K.expand_dims(x, (1, -1)),
    "squeeze": lambda x: K.squeeze(K.mean(x, 1, keepdims=True), 1),
    "append": lambda x: K.append(x, x * 2, -1),
    "hstack": lambda x: K.hstack([x, x]),
    "dstack": lambda x: K.dstack([x, x]),
    "stack": lambda x: K.stack([x, x * 2], 1),
    "stack_last": lambda x: K.stack([x, x * 2], -1),
    "unstack": lambda x: K.unstack(x, 4, 1),
    "concatenate_constant": lambda x: K.concatenate([x, np.ones((3, 4, 2), "float32")], -1),
    "getitem": lambda x: [x[:, 1:3, 2:], x[..., -3:], x[:, ::2], x[:, None, 0, :], x[..., ::-1]],
    "slice": lambda x: K.slice(x, (0, 1, 2), (3, 2, 5)),
    "take": lambda x: [K.take(x, ORDER, -1), K.take(x, 3, -1), K.take(x, [[0, 1], [2, 3]], 1)],
    "repeat": lambda x: K.repeat(x, 2, -1),
    "repeat_one": lambda x: K.repeat(K.sum(x, -1, keepdims=True), 8, -1) * x,
    "tile": lambda x: K.tile(x, (1, 1, 2)),
    "tile_more": lambda x: K.tile(K.expand_dims(x, 1), (1, 3, 1, 1)) * 1.0,
    "tile_one": lambda x: K.tile(K.sum(x, -1, keepdims=True), (1, 1, 8)) + x,
    "flip": lambda x: K.flip(x, -1),
    "roll_steps": lambda x: K.roll(x, 1, 1),
    "tril_steps": lambda x: K.tril(K.matmul(x, K.transpose(x, (0, 2, 1)))),
    "layer_norm": lambda x: K.layer_normalization(x),
    "rms_norm": lambda x: K.rms_normalization(x, EIGHT),
    "glu": lambda x: K.glu(x),
    "cumsum": lambda x: K.cumsum(x, -1),
    "cumprod": lambda x: K.cumprod(x, -1),
    "pad": lambda x: K.pad(x, ((0, 0), (0, 0), (1, 2))),
    "pad_steps": lambda x: K.pad(x, ((0, 0), (2, 1), (0, 0)), mode="reflect"),
    "matmul": lambda x: K.matmul(x, K.transpose(x, (0, 2, 1))),
    "matmul_constant": lambda x: K.matmul(x, np.ones((8, 3), "float32") * EIGHT[:, None]),
    "matmul_from_left": lambda x: K.matmul(np.ones((3, 4), "float32"), x),
    "einsum": lambda x: K.einsum("btc,bsc->bts", x, x),
    "einsum_constant": lambda x: K.einsum("btc,cd->btd", x, np.ones((8, 3), "float32")),
    "einsum_ellipsis": lambda x: K.einsum("...c,c->...", x, EIGHT),
    "tensordot": lambda x: K.tensordot(x, np.ones((8, 3), "float32"), [[2], [0]]),
    "top_k_steps": lambda x: K.top_k(K.transpose(x, (0, 2, 1)), 2)[0],
    "argmax_steps": lambda x: K.argmax(x, 1),
    "sort_steps": lambda x: K.sort(x, 1),
    "clip": lambda x: K.clip(x, -0.5, 0.5),
    "clip_arrays": lambda x: K.clip(x, -EIGHT, EIGHT),
    "average": lambda x: K.average(x, -1),
    "where": lambda x: K.where(x > 0, x, EIGHT),
    "where_number": lambda x: K.where(x > 0, x, -1.0),
    "softmax": lambda x: K.softmax(x, -1),
    "log_softmax": lambda x: K.log_softmax(x, -1),
    "sparsemax": lambda x: K.sparsemax(x),
    "normalize": lambda x: K.normalize(x, -1, 2),
    "moments": lambda x: K.moments(x, -1),
    "norm": lambda x: K.norm(x, axis=-1),
    "zeros_like": lambda x: x + K.zeros_like(x) + K.full_like(x, 2.0),
    "constants": lambda x: (2.0 - x) * EIGHT + EIGHT.astype("float64"),
    "nan_to_num": lambda x: K.nan_to_num(x),
    "logical": lambda x: K.logical_and(x > 0, K.logical_not(x > EIGHT)),
    "reshape_and_back": lambda x: K.reshape(K.reshape(x, (-1, 2, 2, 8)), (-1, 4, 8)),
    "broadcast": lambda x: K.broadcast_to(K.mean(x, 0, keepdims=True), (1, 4, 8)) + x,
    "rearrange": lambda x: K.rearrange(x, "b t c -> b (c t)"),
    "rearrange_shuffle": lambda x: K.rearrange(x, "b t (g n) -> b t (n g)", g=2),
    "rearrange_heads": lambda x: K.sum(K.rearrange(x, "b t (h d) -> b h t d", h=2), -1),
    "dot_product_attention": lambda x: K.dot_product_attention(
        *(K.reshape(x, (-1, 4, 2, 4)) for _ in range(3))
    ),
}
IMAGES3 = {
    "depth_to_space": lambda x: K.nn.depth_to_space(x, 2),
    "rearrange_patches": lambda x: K.rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=2, q=2),
    "rearrange_pixels": lambda x: K.nn.relu(
        K.rearrange(x, "b h w (c p q) -> b (h p) (w q) c", p=2, q=2)
    ),
    "space_to_depth": lambda x: K.nn.space_to_depth(x, 2),
    "extract_patches": lambda x: K.image.extract_patches(x, (2, 2)),
    "resize": lambda x: K.image.resize(x, (6, 6)),
    "crop": lambda x: K.image.crop_images(x, 1, 1, 0, 1),
    "pad_images": lambda x: K.image.pad_images(x, 1, 1, 0, 1),
    "average_pool": lambda x: K.average_pool(x, 2, 1),
    "max_pool": lambda x: K.max_pool(x, (2, 2)),
}
BLOCKED3 = {
    "roll": (lambda x: K.roll(x, 1, -1), "order of the channels"),
    "array_split": (lambda x: K.array_split(x, 3, -1), "as equal as they can be"),
    "argmax": (lambda x: K.argmax(x, -1), "order of the channels"),
    "sort": (lambda x: K.sort(x, -1), "order of the channels"),
    "top_k": (lambda x: K.top_k(x, 2)[0], "order of the channels"),
    "tril": (lambda x: K.tril(x), "order of the channels"),
    "pad_reflect": (lambda x: K.pad(x, ((0, 0), (0, 0), (1, 1)), mode="reflect"), "mode"),
    "stride_of_three": (lambda x: x[..., ::3], "cannot follow a cut"),
    "gather_table": (lambda x: K.take(x, [[0, 1], [2, 3]], -1), "cannot follow a cut"),
    "unstack": (lambda x: K.unstack(x, 8, -1), "takes its channels apart"),
    "diag": (lambda x: K.diagonal(x, 0, 1, 2), "no pruning rule"),
    "fft": (lambda x: K.rfft(x), "no pruning rule"),
    "conv": (lambda x: K.conv(x, np.ones((1, 8, 2), "float32")), "no pruning rule"),
    "append_flat": (lambda x: K.ravel(x), "free dimension"),
    "diff": (lambda x: K.diff(x, axis=-1), "no pruning rule"),
}


@pytest.mark.parametrize("name", EXAMPLES3)
def test_keras_operations(name):
    fixed = name in ("concatenate_constant", "slice") or name.startswith("rearrange")
    check("keras3", EXAMPLES3[name], batch=3 if fixed else None)


@pytest.mark.parametrize("name", IMAGES3)
def test_keras_image_operations(name):
    fixed = name.startswith("rearrange")  # Keras rearranges no free batch
    check("keras3", IMAGES3[name], (4, 4, 8), batch=3 if fixed else None)


@pytest.mark.parametrize("name", BLOCKED3)
def test_keras_operations_that_keep_their_channels(name):
    function, reason = BLOCKED3[name]
    if name in ("append_flat",):
        model = kit("keras3")
        i = model.Input((4, 3))
        x = model.L.Dense(8, name="made")(i)
        groups = analyse(model.Model(i, function(x))).groups
        assert reason in groups[0].blocked
        return
    check("keras3", function, blocked=reason)


def tf_function(name):
    found = tf
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


ONE_TENSOR = [
    n for n, r in TF_OPS.items() if r.__name__ == "unary" and "__" not in n and "keras" not in n
    and n not in ("cast", "saturate_cast", "nn.dropout", "debugging.check_numerics",
                  "math.logical_not")
]  # fmt: skip


@pytest.mark.parametrize("name", ONE_TENSOR)
def test_elementwise_tensorflow_functions(name):
    check("tf_keras", lambda x: tf_function(name)(tf.sigmoid(x) * 0.8 + 0.1))


TWO_TENSORS = [
    n for n, r in TF_OPS.items() if r.__name__ == "broadcasting" and "__" not in n
    and n not in ("where", "math.add_n", "math.logical_and", "math.logical_or", "math.logical_xor")
]  # fmt: skip


@pytest.mark.parametrize("name", TWO_TENSORS)
def test_binary_tensorflow_functions(name):
    check("tf_keras", lambda x: tf_function(name)(tf.sigmoid(x), tf.sigmoid(x) * 0.5 + 0.2))


@pytest.mark.parametrize("name", [n for n in TF_OPS if "math.reduce" in n])
def test_reducing_tensorflow_functions(name):
    def function(x, axis):
        x = x > 0 if name.endswith(("any", "all")) else x
        return tf_function(name)(x, axis)

    check("tf_keras", lambda x: function(x, -1))
    check("tf_keras", lambda x: function(x, 1))


EXAMPLES2 = {
    "operators": lambda x: [2.0 - x, -x, x**2, 1.0 / (x + 9.0), x // 2.0, abs(x), x % 2.0],
    "arrays": lambda x: [x * EIGHT, EIGHT + x, x - [0.1 * n for n in range(8)], x > EIGHT],
    "add_n": lambda x: tf.add_n([x, x * 2.0]),
    "where": lambda x: tf.where(x > 0, x, EIGHT),
    "logical": lambda x: tf.logical_or(x > 0, tf.logical_not(x > 1)),
    "clip": lambda x: tf.clip_by_value(x, -EIGHT, 0.5),
    "split": lambda x: tf.split(x, [2, 5, 1], -1),
    "concat_constant": lambda x: tf.concat([x, np.ones((3, 4, 2), "float32")], -1),
    "stack": lambda x: tf.unstack(tf.stack([x, x * 2.0], 2), axis=2),
    "gather": lambda x: [tf.gather(x, ORDER, axis=-1), tf.gather(x, [0, 2], axis=1),
                         tf.gather(x, 3, axis=2)],
    "slice": lambda x: tf.slice(x, [0, 1, 2], [-1, 2, 5]),
    "getitem": lambda x: [x[:, 1:3, 2:], x[..., -3:], x[:, ::2], x[:, tf.newaxis, 0, :], x[..., 2]],
    "repeat": lambda x: tf.repeat(x, 2, axis=-1),
    "tile": lambda x: [tf.tile(x, [1, 1, 2]), tf.tile(tf.reduce_sum(x, -1, True), [1, 1, 8]) + x],
    "reverse": lambda x: tf.reverse(x, [-1]),
    "roll_steps": lambda x: tf.roll(x, 1, 1),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 0], [1, 2]]),
    "squeeze": lambda x: tf.squeeze(x[:, :1], 1),
    "transpose": lambda x: [tf.transpose(x, [0, 2, 1]), tf.linalg.matrix_transpose(x)],
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "matmul_rows": lambda x: tf.matmul(x, x, transpose_a=True),
    "matmul_constant": lambda x: x @ np.ones((8, 3), "float32"),
    "einsum": lambda x: tf.einsum("btc,bsc->bts", x, x),
    "einsum_constant": lambda x: tf.einsum("btc,cd->btd", x, np.ones((8, 3), "float32")),
    "tensordot": lambda x: tf.tensordot(x, np.ones((8, 3), "float32"), [[2], [0]]),
    "softmax": lambda x: [tf.nn.softmax(x), tf.nn.log_softmax(x, axis=-1)],
    "l2_normalize": lambda x: tf.nn.l2_normalize(x, -1),
    "norm": lambda x: tf.norm(x, axis=-1),
    "moments": lambda x: tf.nn.moments(x, [-1]),
    "cumulative": lambda x: [tf.cumsum(x, -1), tf.math.cumprod(x, 2)],
    "top_k_steps": lambda x: tf.math.top_k(tf.transpose(x, [0, 2, 1]), 2)[0],
    "argmax_steps": lambda x: tf.argmax(x, 1),
    "shape_of_steps": lambda x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], 8]),
    "shape_product": lambda x: tf.reshape(x, [-1, 32]),
    "bias_add": lambda x: tf.nn.bias_add(x, EIGHT),
    "batch_normalization": lambda x: tf.nn.batch_normalization(x, EIGHT, EIGHT, EIGHT, EIGHT, 0.1),
    "dropout": lambda x: tf.nn.dropout(x, 0.0),
    "cast": lambda x: tf.cast(x, "float16"),
    "broadcast": lambda x: tf.broadcast_to(tf.reduce_mean(x, 0, True), [1, 4, 8]) + x,
    "zeros_like": lambda x: x + tf.ones_like(x),
}  # fmt: skip
IMAGES2 = {
    "depth_to_space": lambda x: tf.nn.depth_to_space(x, 2),
    "space_to_depth": lambda x: tf.nn.space_to_depth(x, 2),
    "extract_patches": lambda x: tf.image.extract_patches(
        x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME"
    ),
    "resize": lambda x: tf.image.resize(x, (6, 6)),
    "flip": lambda x: tf.image.flip_left_right(x),
    "crop": lambda x: tf.image.central_crop(x, 0.5),
    "avg_pool": lambda x: tf.nn.avg_pool2d(x, 2, 1, "SAME"),
    "max_pool": lambda x: tf.nn.max_pool(x, 2, 2, "VALID"),
    "blur": lambda x: tf.nn.depthwise_conv2d(
        x, np.ones((2, 2, 8, 2), "float32") * EIGHT[:, None], [1, 1, 1, 1], "SAME"
    ),
}
BLOCKED2 = {
    "roll": (lambda x: tf.roll(x, 1, 2), "order of the channels"),
    "argmax": (lambda x: tf.argmax(x, 2), "order of the channels"),
    "sort": (lambda x: tf.sort(x), "order of the channels"),
    "unstack": (lambda x: tf.unstack(x, axis=-1), "takes its channels apart"),
    "shape": (lambda x: x / tf.cast(tf.shape(x)[-1], "float32"), "number of channels"),
    "whole_shape": (lambda x: tf.zeros(tf.shape(x)) + 1.0 + x, "number of channels"),
    "response_norm": (
        lambda x: tf.nn.local_response_normalization(tf.expand_dims(x, 1)),
        "no pruning rule",
    ),
    "crelu": (lambda x: tf.nn.crelu(x), "no pruning rule"),
    "gather_table": (lambda x: tf.gather(x, [[0, 1], [2, 3]], axis=-1), "cannot follow a cut"),
}


@pytest.mark.parametrize("name", EXAMPLES2)
def test_tensorflow_functions(name):
    check("tf_keras", EXAMPLES2[name], batch=3 if name == "concat_constant" else None)


@pytest.mark.parametrize("name", IMAGES2)
def test_tensorflow_image_functions(name):
    check("tf_keras", IMAGES2[name], (4, 4, 8))


@pytest.mark.parametrize("name", BLOCKED2)
def test_tensorflow_functions_that_keep_their_channels(name):
    function, reason = BLOCKED2[name]
    check("tf_keras", function, blocked=reason)
