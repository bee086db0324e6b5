"""Every layer kind that quantization-aware training is asked for: one small call of each.

benchmarks/layer_zoo.py measures all of them; tests/test_qat_layers.py keeps what holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests import zoo
from tfedge._keras import keras, tf
from tfedge.bridge import functions

L = keras.layers
MAP, SEQ, VEC, WIDE = (6, 6, 4), (5, 6), (8,), (4, 4, 16)


@dataclass(frozen=True)
class Case:
    """One layer kind: shapes of its inputs (without batch) and its call."""

    call: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    integers: int = 0  # inputs are whole numbers below this

    def alone(self) -> Any:
        """The layer as a model."""
        ins = [self._input(s, n) for n, s in enumerate(self.shapes)]
        return zoo.randomize(keras.Model(ins, self.call(*ins)), 1)

    def inside(self) -> Any:
        """The layer between two convolutions, or two dense layers."""
        ins = [self._input(s, n) for n, s in enumerate(self.shapes)]
        y = self.call(*(ins if self.integers else [_linear(t) for t in ins]))
        outs = [_linear(t) for t in tf.nest.flatten(y)]
        return zoo.randomize(keras.Model(ins, outs if len(outs) > 1 else outs[0]), 1)

    def _input(self, shape: tuple[int, ...], number: int) -> Any:
        dtype = "int32" if self.integers else "float32"
        return keras.Input(shape, name=f"x{number}", dtype=dtype)

    def data(self, count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs by name."""
        rng = np.random.default_rng(seed)
        made = {}
        for n, shape in enumerate(self.shapes):
            if self.integers:
                made[f"x{n}"] = rng.integers(0, self.integers, (count, *shape)).astype("int32")
            else:
                made[f"x{n}"] = rng.normal(size=(count, *shape)).astype("float32")
        return made


def _linear(x: Any) -> Any:
    channels = x.shape[-1]
    if channels is None or len(x.shape) < 2:
        return x
    if len(x.shape) == 4:
        return L.Conv2D(channels, 1)(x)
    return L.Dense(channels)(x) if len(x.shape) < 4 else L.Conv3D(channels, 1)(x)


def _one(shape: tuple[int, ...], make: Callable[[], Any]) -> Case:
    return Case(lambda x: make()(x), (shape,))


def _op(shape: tuple[int, ...], call: Callable[[Any], Any]) -> Case:
    return Case(call, (shape,))


def _two(call: Callable[..., Any], *shapes: tuple[int, ...]) -> Case:
    return Case(call, shapes)


def _normalization() -> Any:
    return L.Normalization(mean=[0.1, 0.2, 0.3, -0.4], variance=[1.0, 2.0, 0.5, 0.3])


CONVOLUTIONS = {
    "Conv2D": _one(MAP, lambda: L.Conv2D(6, 3)),
    "Conv2D strided same": _one(MAP, lambda: L.Conv2D(6, 3, strides=2, padding="same")),
    "Conv2D dilated": _one(MAP, lambda: L.Conv2D(6, 3, dilation_rate=2)),
    "Conv2D grouped": _one(MAP, lambda: L.Conv2D(8, 3, groups=2)),
    "Conv2D relu": _one(MAP, lambda: L.Conv2D(6, 3, activation="relu")),
    "Conv2D swish": _one(MAP, lambda: L.Conv2D(6, 3, activation="swish")),
    "Conv2D + BatchNorm + ReLU": _op(
        MAP, lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3, use_bias=False)(x)))
    ),
    "Conv1D": _one(SEQ, lambda: L.Conv1D(4, 3)),
    "Conv1D causal dilated": _one(
        SEQ, lambda: L.Conv1D(4, 2, padding="causal", dilation_rate=2, activation="relu")
    ),
    "Conv3D": _one((4, 4, 4, 2), lambda: L.Conv3D(3, 2)),
    "Conv2DTranspose": _one(MAP, lambda: L.Conv2DTranspose(6, 3, strides=2, padding="same")),
    "Conv2DTranspose relu": _one(MAP, lambda: L.Conv2DTranspose(6, 2, activation="relu")),
    "Conv1DTranspose": _one(SEQ, lambda: L.Conv1DTranspose(4, 3, strides=2)),
    "Conv3DTranspose": _one((3, 3, 3, 2), lambda: L.Conv3DTranspose(3, 2)),
    "Conv3DTranspose strided": _one(
        (3, 3, 4, 2), lambda: L.Conv3DTranspose(3, (4, 3, 2), strides=(2, 1, 2), padding="same")
    ),
    "DepthwiseConv2D": _one(MAP, lambda: L.DepthwiseConv2D(3, depth_multiplier=2)),
    "DepthwiseConv2D dilated": _one(MAP, lambda: L.DepthwiseConv2D(3, dilation_rate=2)),
    "DepthwiseConv1D": _one(SEQ, lambda: L.DepthwiseConv1D(3)),
    "SeparableConv2D": _one(MAP, lambda: L.SeparableConv2D(6, 3, activation="relu")),
    "SeparableConv1D": _one(SEQ, lambda: L.SeparableConv1D(4, 3)),
    "SeparableConv1D strided": _one(
        (9, 6), lambda: L.SeparableConv1D(4, 3, strides=2, padding="same")
    ),
    "LocallyConnected2D": _one(MAP, lambda: L.LocallyConnected2D(3, 3)),
    "LocallyConnected2D strided": _one(
        (7, 6, 4), lambda: L.LocallyConnected2D(3, (3, 2), strides=2, activation="elu")
    ),
    "LocallyConnected1D": _one(SEQ, lambda: L.LocallyConnected1D(3, 3)),
}

DENSES = {
    "Dense": _one(VEC, lambda: L.Dense(5)),
    "Dense relu": _one(VEC, lambda: L.Dense(5, activation="relu")),
    "Dense 3-D": _one(SEQ, lambda: L.Dense(5)),
    "Dense 4-D": _one(MAP, lambda: L.Dense(5)),
    "Dense + BatchNorm": _op(VEC, lambda x: L.BatchNormalization()(L.Dense(6)(x))),
    "EinsumDense ab,bc->ac": _one(VEC, lambda: L.EinsumDense("ab,bc->ac", 5, bias_axes="c")),
    "EinsumDense abc,cde->abde": _one(
        SEQ, lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")
    ),
    "EinsumDense abcd,cde->abe": _one(
        (5, 2, 3), lambda: L.EinsumDense("abcd,cde->abe", (None, 4), bias_axes="e")
    ),
    "EinsumDense abc,bd->adc": _one(
        SEQ, lambda: L.EinsumDense("abc,bd->adc", (4, 6), bias_axes="d")
    ),
    "Embedding": Case(lambda x: L.Embedding(10, 6)(x), ((5,),), integers=10),
    "TimeDistributed(Dense)": _one(SEQ, lambda: L.TimeDistributed(L.Dense(4))),
    "TimeDistributed(Conv2D)": _one((3, 5, 5, 2), lambda: L.TimeDistributed(L.Conv2D(4, 3))),
}

NORMS = {
    "BatchNormalization": _one(MAP, lambda: L.BatchNormalization()),
    "BatchNormalization 3-D": _one(SEQ, lambda: L.BatchNormalization()),
    "BatchNormalization 2-D": _one(VEC, lambda: L.BatchNormalization()),
    "BatchNormalization axis 1": _one(MAP, lambda: L.BatchNormalization(axis=1)),
    "BatchNormalization twice": _op(
        MAP, lambda x: L.BatchNormalization()(L.ReLU()(L.BatchNormalization()(x)))
    ),
    "LayerNormalization": _one(WIDE, lambda: L.LayerNormalization()),
    "LayerNormalization 3-D": _one((5, 16), lambda: L.LayerNormalization(epsilon=1e-6)),
    "LayerNormalization 2-D": _one((24,), lambda: L.LayerNormalization()),
    "LayerNormalization plain": _one(
        (5, 16), lambda: L.LayerNormalization(center=False, scale=False)
    ),
    "LayerNormalization axes 1 2": _one(SEQ, lambda: L.LayerNormalization(axis=[1, 2])),
    "LayerNormalization axis 1": _one(SEQ, lambda: L.LayerNormalization(axis=1)),
    "GroupNormalization": _one(WIDE, lambda: L.GroupNormalization(2)),
    "GroupNormalization 3-D": _one((9, 8), lambda: L.GroupNormalization(4)),
    "InstanceNormalization": _one(WIDE, lambda: L.GroupNormalization(-1)),
    "UnitNormalization": _one((5, 16), lambda: L.UnitNormalization()),
    "Rescaling": _one(MAP, lambda: L.Rescaling(0.5, -1.0)),
    "Rescaling channels": _one(MAP, lambda: L.Rescaling([0.5, 1.0, 2.0, 1.5], [0.1, 0.2, 0.3, 1])),
    "Normalization": _one(MAP, _normalization),
}

_FUNCTIONS = (
    "relu", "relu6", "sigmoid", "tanh", "softmax", "swish", "gelu", "elu", "selu", "softplus",
    "softsign", "exponential", "hard_sigmoid", "mish",
)  # fmt: skip
_BRIDGED = {
    f"keras3 {f.__name__}": f
    for f in (
        functions.hard_sigmoid, functions.hard_silu, functions.leaky_relu, functions.log_softmax,
        functions.log_sigmoid, functions.celu,
    )
}  # fmt: skip
ACTIVATIONS = {
    **{f"activation {n}": _one(MAP, lambda n=n: L.Activation(n)) for n in _FUNCTIONS},
    **{n: _one(MAP, lambda f=f: L.Activation(f)) for n, f in _BRIDGED.items()},
    "activation gelu tanh": _op(MAP, lambda x: tf.nn.gelu(x, approximate=True)),
    "ReLU": _one(MAP, lambda: L.ReLU()),
    "ReLU max 6": _one(MAP, lambda: L.ReLU(6.0)),
    "ReLU max 1": _one(MAP, lambda: L.ReLU(1.0)),
    "ReLU slope": _one(MAP, lambda: L.ReLU(negative_slope=0.1)),
    "ReLU slope max": _one(MAP, lambda: L.ReLU(2.0, negative_slope=0.1)),
    "ReLU threshold": _one(MAP, lambda: L.ReLU(threshold=0.5)),
    "ReLU threshold slope max": _one(MAP, lambda: L.ReLU(2.0, negative_slope=0.1, threshold=0.5)),
    "ThresholdedReLU": _one(MAP, lambda: L.ThresholdedReLU(0.5)),
    "LeakyReLU": _one(MAP, lambda: L.LeakyReLU(0.2)),
    "PReLU": _one(MAP, lambda: L.PReLU()),
    "PReLU shared": _one(MAP, lambda: L.PReLU(shared_axes=[1, 2])),
    "ELU": _one(MAP, lambda: L.ELU()),
    "ELU alpha": _one(MAP, lambda: L.ELU(0.5)),
    "Softmax": _one(MAP, lambda: L.Softmax()),
    "Softmax axis 1": _one(SEQ, lambda: L.Softmax(axis=1)),
    "log_softmax": _op(VEC, tf.nn.log_softmax),
    "MobileNetV3 hard_sigmoid": _op(MAP, lambda x: L.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)),
    "MobileNetV3 hard_swish": _op(
        MAP, lambda x: L.Multiply()([x, L.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])
    ),
    "Dense hard_sigmoid": _one(VEC, lambda: L.Dense(6, activation="hard_sigmoid")),
    "Conv2D gelu": _one(MAP, lambda: L.Conv2D(6, 3, activation="gelu")),
    "Conv2D elu": _one(MAP, lambda: L.Conv2D(6, 3, activation="elu")),
}

POOLS = {
    "MaxPooling2D": _one(MAP, lambda: L.MaxPooling2D()),
    "AveragePooling2D": _one(MAP, lambda: L.AveragePooling2D()),
    "AveragePooling2D same": _one(
        (5, 5, 4), lambda: L.AveragePooling2D(3, strides=2, padding="same")
    ),
    "MaxPooling1D": _one((6, 4), lambda: L.MaxPooling1D()),
    "AveragePooling1D": _one((6, 4), lambda: L.AveragePooling1D()),
    "MaxPooling3D": _one((4, 4, 4, 2), lambda: L.MaxPooling3D()),
    "AveragePooling3D": _one((4, 4, 4, 2), lambda: L.AveragePooling3D()),
    "GlobalAveragePooling2D": _one(MAP, lambda: L.GlobalAveragePooling2D()),
    "GlobalAveragePooling2D keep": _one(MAP, lambda: L.GlobalAveragePooling2D(keepdims=True)),
    "GlobalMaxPooling2D": _one(MAP, lambda: L.GlobalMaxPooling2D()),
    "GlobalMaxPooling2D keep": _one(MAP, lambda: L.GlobalMaxPooling2D(keepdims=True)),
    "GlobalAveragePooling1D": _one(SEQ, lambda: L.GlobalAveragePooling1D()),
    "GlobalMaxPooling1D": _one(SEQ, lambda: L.GlobalMaxPooling1D()),
    "GlobalAveragePooling3D": _one((3, 3, 3, 2), lambda: L.GlobalAveragePooling3D()),
    "GlobalMaxPooling3D": _one((3, 3, 3, 2), lambda: L.GlobalMaxPooling3D()),
}

SHAPES = {
    "Flatten": _one(MAP, lambda: L.Flatten()),
    "Reshape": _one(MAP, lambda: L.Reshape((9, 16))),
    "Permute": _one(MAP, lambda: L.Permute((3, 1, 2))),
    "RepeatVector": _one(VEC, lambda: L.RepeatVector(3)),
    "ZeroPadding1D": _one(SEQ, lambda: L.ZeroPadding1D(1)),
    "ZeroPadding2D": _one(MAP, lambda: L.ZeroPadding2D(1)),
    "ZeroPadding3D": _one((2, 2, 2, 2), lambda: L.ZeroPadding3D(1)),
    "Cropping1D": _one(SEQ, lambda: L.Cropping1D(1)),
    "Cropping2D": _one(MAP, lambda: L.Cropping2D(1)),
    "Cropping3D": _one((4, 4, 4, 2), lambda: L.Cropping3D(1)),
    "UpSampling1D": _one(SEQ, lambda: L.UpSampling1D(2)),
    "UpSampling2D": _one(MAP, lambda: L.UpSampling2D(2)),
    "UpSampling2D bilinear": _one(MAP, lambda: L.UpSampling2D(2, interpolation="bilinear")),
    "UpSampling3D": _one((2, 2, 2, 2), lambda: L.UpSampling3D(2)),
    "Resizing bilinear": _one(MAP, lambda: L.Resizing(9, 9)),
    "Resizing nearest": _one(MAP, lambda: L.Resizing(9, 9, interpolation="nearest")),
    "CenterCrop": _one(MAP, lambda: L.CenterCrop(4, 4)),
    "Dropout": _one(MAP, lambda: L.Dropout(0.5)),
    "SpatialDropout2D": _one(MAP, lambda: L.SpatialDropout2D(0.5)),
    "GaussianNoise": _one(MAP, lambda: L.GaussianNoise(0.5)),
    "AlphaDropout": _one(MAP, lambda: L.AlphaDropout(0.5)),
}

MERGES = {
    "Add": _two(lambda a, b: L.Add()([a, b]), MAP, MAP),
    "Add of three": _two(lambda a, b, c: L.Add()([a, b, c]), VEC, VEC, VEC),
    "Add broadcast": _two(lambda a, b: L.Add()([a, b]), MAP, (1, 1, 4)),
    "Subtract": _two(lambda a, b: L.Subtract()([a, b]), MAP, MAP),
    "Multiply": _two(lambda a, b: L.Multiply()([a, b]), MAP, MAP),
    "Multiply broadcast": _two(lambda a, b: L.Multiply()([a, b]), MAP, (1, 1, 4)),
    "Multiply ranks": _two(lambda a, b: a * b[:, None, None], MAP, (4,)),
    "Squeeze and excite": _op(
        MAP,
        lambda x: (
            x
            * L.Dense(4, "sigmoid")(L.Dense(2, "relu")(L.GlobalAveragePooling2D(keepdims=True)(x)))
        ),
    ),
    "Average": _two(lambda a, b: L.Average()([a, b]), MAP, MAP),
    "Average of three": _two(lambda a, b, c: L.Average()([a, b, c]), VEC, VEC, VEC),
    "Maximum": _two(lambda a, b: L.Maximum()([a, b]), MAP, MAP),
    "Minimum": _two(lambda a, b: L.Minimum()([a, b]), MAP, MAP),
    "Concatenate": _two(lambda a, b: L.Concatenate()([a, b]), MAP, MAP),
    "Concatenate same": _op(MAP, lambda x: L.Concatenate()([x, x])),
    "Concatenate axis 1": _two(lambda a, b: L.Concatenate(axis=1)([a, b]), MAP, MAP),
    "Dot": _two(lambda a, b: L.Dot(axes=1)([a, b]), VEC, VEC),
    "Dot 3-D": _two(lambda a, b: L.Dot(axes=(2, 2))([a, b]), SEQ, SEQ),
    "Dot normalized": _two(lambda a, b: L.Dot(axes=1, normalize=True)([a, b]), VEC, VEC),
    "x + x": _op(MAP, lambda x: x + x),
}

CAUSAL = np.tri(5, dtype=bool)
HIDING = np.where(CAUSAL, 0.0, -1e9).astype("float32")
POSITIONS = np.random.default_rng(5).normal(size=SEQ).astype("float32")
ATTENTIONS = {
    "Attention": _two(lambda q, v: L.Attention()([q, v]), SEQ, (4, 6)),
    "Attention scaled self": _op(SEQ, lambda x: L.Attention(use_scale=True)([x, x, x])),
    "AdditiveAttention": _two(lambda q, v: L.AdditiveAttention()([q, v]), SEQ, (4, 6)),
    "MultiHeadAttention": _op(SEQ, lambda x: L.MultiHeadAttention(2, 3)(x, x)),
    "MultiHeadAttention cross": _two(
        lambda q, v: L.MultiHeadAttention(2, 3, value_dim=4)(q, v), SEQ, (4, 6)
    ),
    "MultiHeadAttention causal": _op(
        SEQ, lambda x: L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    ),
    "MultiHeadAttention mask": _op(
        SEQ,
        lambda x: L.MultiHeadAttention(2, 3)(x, x, attention_mask=tf.constant(CAUSAL[None, ::-1])),
    ),
    "Attention causal": _op(
        SEQ, lambda x: L.Attention(use_scale=True)([x, x], use_causal_mask=True)
    ),
    "AdditiveAttention causal": _op(
        SEQ, lambda x: L.AdditiveAttention()([x, x], use_causal_mask=True)
    ),
    "Softmax mask": _op((5, 5), lambda x: L.Softmax()(x, tf.constant(CAUSAL))),
    "scores + mask": _op((2, 5, 5), lambda x: tf.nn.softmax(x + HIDING)),
}

RECURRENTS = {
    "LSTM": _one(SEQ, lambda: L.LSTM(4)),
    "LSTM sequences": _one(SEQ, lambda: L.LSTM(4, return_sequences=True)),
    "LSTM unrolled": _one(SEQ, lambda: L.LSTM(4, unroll=True)),
    "LSTM states": _op(SEQ, lambda x: L.LSTM(4, return_state=True)(x)),
    "GRU": _one(SEQ, lambda: L.GRU(4)),
    "GRU sequences": _one(SEQ, lambda: L.GRU(4, return_sequences=True)),
    "GRU reset before": _one(SEQ, lambda: L.GRU(4, reset_after=False)),
    "SimpleRNN": _one(SEQ, lambda: L.SimpleRNN(4)),
    "Bidirectional(LSTM)": _one(SEQ, lambda: L.Bidirectional(L.LSTM(3))),
    "Bidirectional(GRU) sequences": _one(
        SEQ, lambda: L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum")
    ),
    "RNN(LSTMCell)": _one(SEQ, lambda: L.RNN(L.LSTMCell(4))),
    "StackedRNNCells": _one(SEQ, lambda: L.RNN([L.GRUCell(4), L.LSTMCell(3)])),
    "ConvLSTM2D states": _op(
        (3, 5, 5, 2),
        lambda x: L.ConvLSTM2D(2, 3, strides=2, return_state=True, go_backwards=True)(x),
    ),
    "ConvLSTM2D": _one((3, 5, 5, 2), lambda: L.ConvLSTM2D(2, 3)),
}

OPERATIONS = {
    "x + y": _two(lambda a, b: a + b, MAP, MAP),
    "x * y": _two(lambda a, b: a * b, MAP, MAP),
    "x - y": _two(lambda a, b: a - b, MAP, MAP),
    "x / y": _two(lambda a, b: a / (tf.nn.relu(b) + 1.0), MAP, MAP),
    "x / -y": _two(lambda a, b: a / (-1.0 - tf.nn.relu(b)), MAP, MAP),
    "2 / y": _op(MAP, lambda x: 2.0 / (tf.nn.relu(x) + 1.0)),
    "x / sum": _op(
        MAP,
        lambda x: tf.nn.relu(x) / (1.0 + tf.reduce_sum(tf.nn.relu(x), -1, keepdims=True)),
    ),
    "x + constant": _op(MAP, lambda x: x + 0.5),
    "x + positions": _op(SEQ, lambda x: x + POSITIONS),
    "positions - x": _op(SEQ, lambda x: POSITIONS[None] - x),
    "x * positions": _op(SEQ, lambda x: x * POSITIONS),
    "x * constant": _op(MAP, lambda x: x * 0.3),
    "constant - x": _op(MAP, lambda x: 1.0 - x),
    "x / constant": _op(MAP, lambda x: x / 255.0),
    "negative x": _op(MAP, lambda x: -x),
    "slice": _op(MAP, lambda x: x[:, 1:4, ::2]),
    "slice channels": _op(MAP, lambda x: x[..., :2]),
    "tf.split": _op(MAP, lambda x: tf.split(x, 2, axis=-1)),
    "tf.concat": _two(lambda a, b: tf.concat([a, b], -1), MAP, MAP),
    "tf.stack": _two(lambda a, b: tf.stack([a, b], 1), SEQ, SEQ),
    "tf.reduce_mean": _op(MAP, lambda x: tf.reduce_mean(x, [1, 2], keepdims=True)),
    "tf.reduce_mean last": _op(MAP, lambda x: tf.reduce_mean(x, -1, keepdims=True)),
    "tf.reduce_sum": _op(MAP, lambda x: tf.reduce_sum(x, [1, 2])),
    "tf.reduce_max": _op(MAP, lambda x: tf.reduce_max(x, [1, 2])),
    "tf.reduce_max last": _op(MAP, lambda x: tf.reduce_max(x, -1, keepdims=True)),
    "tf.reduce_min": _op(MAP, lambda x: tf.reduce_min(x, [1, 2])),
    "tf.matmul": _two(lambda a, b: tf.matmul(a, b, transpose_b=True), SEQ, SEQ),
    "tf.matmul 4-D": _two(lambda a, b: tf.matmul(a, b), (2, 3, 4), (2, 4, 3)),
    "tf.matmul constant": _op(SEQ, lambda x: tf.matmul(x, np.eye(6, 4, dtype="float32") * 0.7)),
    "tf.einsum": _two(lambda a, b: tf.einsum("bqd,bkd->bqk", a, b), SEQ, (4, 6)),
    "tf.einsum heads": _two(lambda a, b: tf.einsum("bqhd,bkhd->bhqk", a, b), (5, 2, 3), (4, 2, 3)),
    "depth_to_space": _op(MAP, lambda x: tf.nn.depth_to_space(x, 2)),
    "space_to_depth": _op(MAP, lambda x: tf.nn.space_to_depth(x, 2)),
    "tf.pad": _op(MAP, lambda x: tf.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]])),
    "tf.pad reflect": _op(MAP, lambda x: tf.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]], "REFLECT")),
    "tf.image.resize": _op(MAP, lambda x: tf.image.resize(x, (9, 9))),
    "tf.image.resize nearest": _op(MAP, lambda x: tf.image.resize(x, (9, 9), method="nearest")),
    "tf.tile": _op(MAP, lambda x: tf.tile(x, [1, 2, 1, 1])),
    "tf.reverse": _op(SEQ, lambda x: tf.reverse(x, [1])),
    "tf.gather": _op(SEQ, lambda x: tf.gather(x, [0, 2, 4], axis=1)),
    "tf.abs": _op(MAP, tf.abs),
    "tf.square": _op(MAP, tf.square),
    "tf.sqrt": _op(MAP, lambda x: tf.sqrt(tf.nn.relu(x) + 0.5)),
    "tf.math.rsqrt": _op(MAP, lambda x: tf.math.rsqrt(tf.nn.relu(x) + 0.5)),
    "tf.exp": _op(MAP, tf.exp),
    "tf.math.log": _op(MAP, lambda x: tf.math.log(tf.nn.relu(x) + 0.5)),
    "tf.clip_by_value": _op(MAP, lambda x: tf.clip_by_value(x, -0.5, 0.5)),
    "tf.maximum constant": _op(MAP, lambda x: tf.maximum(x, 0.2)),
    "tf.math.l2_normalize": _op(SEQ, lambda x: tf.math.l2_normalize(x, -1)),
    "channel shuffle": _op(
        MAP,
        lambda x: tf.reshape(
            tf.transpose(tf.reshape(x, (-1, 6, 6, 2, 2)), (0, 1, 2, 4, 3)), (-1, 6, 6, 4)
        ),
    ),
}

CASES: dict[str, Case] = {
    **CONVOLUTIONS, **DENSES, **NORMS, **ACTIVATIONS, **POOLS, **SHAPES, **MERGES, **ATTENTIONS,
    **RECURRENTS, **OPERATIONS,
}  # fmt: skip
