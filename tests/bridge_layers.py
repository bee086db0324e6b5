"""One case a layer class and way of using it, to be built in either Keras: group -> name -> Case.

A case builds outputs from inputs with the layers of the library that it is given; both Kerases take
the same arguments unless a case says for which flavour it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.sessions import fresh
from tfedge._keras import keras3

IMAGE, SEQUENCE, VECTOR, CUBE = (6, 7, 4), (5, 6), (8,), (4, 5, 6, 3)


@dataclass(frozen=True)
class Case:
    """`build(lib, *inputs)` gives the outputs.

    Attributes:
        shapes: Those of the inputs; a type at the end says int (tokens) or bool instead of float.
        only: Flavour that alone has this.
    """

    build: Callable[..., Any]
    shapes: tuple[tuple, ...]
    only: str = ""


def on(shape: tuple, **layers: Callable[[Any], Any]) -> dict[str, Case]:
    """Cases of one layer on one tensor: name -> function of `lib.layers`."""

    def case(make: Callable[[Any], Any]) -> Case:
        return Case(lambda lib, x: make(lib.layers)(x), (shape,))

    return {name: case(make) for name, make in layers.items()}


def merge(*shapes: tuple, **layers: Callable[[Any], Any]) -> dict[str, Case]:
    """Cases of one layer on a list of tensors."""

    def case(make: Callable[[Any], Any]) -> Case:
        return Case(lambda lib, *xs: make(lib.layers)(list(xs)), shapes)

    return {name: case(make) for name, make in layers.items()}


def tokens(**cases: Callable[..., Any]) -> dict[str, Case]:
    """Cases on integer tokens [5]; 0 is the padding."""
    return {name: Case(build, ((5, int),)) for name, build in cases.items()}


def adapted(lib: Any, layer: Any, shape: tuple) -> Any:
    """A preprocessing layer after `adapt` on random data."""
    layer.adapt(np.random.default_rng(3).normal(2, 3, (16, *shape)).astype("float32"))
    return layer


def cube_root(x: Any) -> Any:
    """An activation that no Keras knows."""
    return x / (1.0 + x * x)


dense = on(
    VECTOR,
    dense=lambda L: L.Dense(5, "tanh", kernel_regularizer="l2", bias_constraint="non_neg"),
    no_bias=lambda L: L.Dense(5, use_bias=False, kernel_initializer="he_normal"),
    activity_regularizer=lambda L: L.Dense(5, activity_regularizer="l1"),
    custom_activation=lambda L: L.Dense(5, activation=cube_root),
    layer_as_activation=lambda L: L.Dense(5, activation=L.LeakyReLU(0.2)),
    frozen=lambda L: L.Dense(5, trainable=False),
    half=lambda L: L.Dense(5, dtype="mixed_float16"),
    bfloat=lambda L: L.Dense(5, dtype="mixed_bfloat16"),
    double=lambda L: L.Dense(5, dtype="float64"),
    slash_less_name=lambda L: L.Dense(5, name="block.1-dense"),
    dropout=lambda L: L.Dropout(0.3, noise_shape=(None, 1), seed=3),
    gaussian_noise=lambda L: L.GaussianNoise(0.2),
    gaussian_dropout=lambda L: L.GaussianDropout(0.2),
    alpha_dropout=lambda L: L.AlphaDropout(0.2),
    activity=lambda L: L.ActivityRegularization(0.1, 0.2),
    identity=lambda L: L.Identity(),
    repeat=lambda L: L.RepeatVector(3),
    unit=lambda L: L.UnitNormalization(),
    reshape=lambda L: L.Reshape((2, -1)),
) | {
    "einsum": Case(
        lambda lib, x: lib.layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e")(x),
        (SEQUENCE,), "tf_keras",
    ),
    "einsum_known": Case(
        lambda lib, x: lib.layers.EinsumDense(
            "abc,cde->abde", (5, 2, 3), activation="relu", bias_axes="de")(x),
        (SEQUENCE,),
    ),
    "einsum_ellipsis": Case(
        lambda lib, x: lib.layers.EinsumDense("...x,xy->...y", 3, bias_axes="y")(x), (IMAGE,)
    ),
}  # fmt: skip

lambdas = on(
    VECTOR,
    function=lambda L: L.Lambda(cube_root),
    arguments=lambda L: L.Lambda(lambda x, k: x * k, arguments={"k": 3.0}),
    operation=lambda L: L.Lambda(lambda x: keras3().ops.relu(x) + 1.0),
    shaped=lambda L: L.Lambda(lambda x: x[:, :2], output_shape=(2,)),
)

conv = (
    on(
        IMAGE,
        conv2d=lambda L: L.Conv2D(5, (3, 2), (2, 1), "same", activation="elu"),
        dilated=lambda L: L.Conv2D(5, 3, dilation_rate=(2, 1), use_bias=False),
        grouped=lambda L: L.Conv2D(6, 2, groups=2, kernel_constraint="max_norm"),
        depthwise=lambda L: L.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        depthwise_dilated=lambda L: L.DepthwiseConv2D(2, dilation_rate=2, activation="swish"),
        separable=lambda L: L.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu"),
        transpose=lambda L: L.Conv2DTranspose(5, 3, 2, "same", use_bias=False),
        transpose_output_padding=lambda L: L.Conv2DTranspose(5, 3, 2, output_padding=1),
        half=lambda L: L.Conv2D(5, 3, dtype="mixed_float16"),
        padding=lambda L: L.ZeroPadding2D(((1, 0), (2, 3))),
        cropping=lambda L: L.Cropping2D(((1, 0), (2, 1))),
        up_nearest=lambda L: L.UpSampling2D((2, 3)),
        up_bilinear=lambda L: L.UpSampling2D((2, 3), interpolation="bilinear"),
        up_bicubic=lambda L: L.UpSampling2D(2, interpolation="bicubic"),
        permute=lambda L: L.Permute((3, 1, 2)),
        flatten=lambda L: L.Flatten(),
        spatial_dropout=lambda L: L.SpatialDropout2D(0.2),
    )
    | on(
        SEQUENCE,
        conv1d=lambda L: L.Conv1D(5, 3, padding="causal", dilation_rate=2),
        conv1d_strided=lambda L: L.Conv1D(5, 3, 2, padding="same", activation="relu"),
        separable1d=lambda L: L.SeparableConv1D(5, 3, padding="same", activation="tanh"),
        depthwise1d=lambda L: L.DepthwiseConv1D(3, depth_multiplier=2),
        transpose1d=lambda L: L.Conv1DTranspose(5, 3, strides=2, padding="same"),
        padding1d=lambda L: L.ZeroPadding1D((1, 2)),
        cropping1d=lambda L: L.Cropping1D((1, 2)),
        up1d=lambda L: L.UpSampling1D(3),
        spatial_dropout1d=lambda L: L.SpatialDropout1D(0.2),
    )
    | on(
        CUBE,
        conv3d=lambda L: L.Conv3D(4, 2, strides=2, padding="same", activation="relu"),
        transpose3d=lambda L: L.Conv3DTranspose(4, 2, strides=2),
        padding3d=lambda L: L.ZeroPadding3D(((1, 0), (0, 1), (2, 0))),
        cropping3d=lambda L: L.Cropping3D(1),
        up3d=lambda L: L.UpSampling3D(2),
        spatial_dropout3d=lambda L: L.SpatialDropout3D(0.2),
    )
)

pool = (
    on(
        IMAGE,
        max2d=lambda L: L.MaxPooling2D((3, 2), (2, 1), "same"),
        average2d=lambda L: L.AveragePooling2D((3, 2), 2, "same"),
        global_average=lambda L: L.GlobalAveragePooling2D(),
        global_average_kept=lambda L: L.GlobalAveragePooling2D(keepdims=True),
        global_max=lambda L: L.GlobalMaxPooling2D(keepdims=True),
        global_channels_first=lambda L: L.GlobalAveragePooling2D(data_format="channels_first"),
        flatten_channels_first=lambda L: L.Flatten(data_format="channels_first"),
        padding_channels_first=lambda L: L.ZeroPadding2D(1, data_format="channels_first"),
        up_channels_first=lambda L: L.UpSampling2D(2, data_format="channels_first"),
    )
    | on(
        SEQUENCE,
        max1d=lambda L: L.MaxPooling1D(2, padding="same"),
        average1d=lambda L: L.AveragePooling1D(3, 1),
        global_average1d=lambda L: L.GlobalAveragePooling1D(),
        global_max1d=lambda L: L.GlobalMaxPooling1D(keepdims=True),
        max1d_channels_first=lambda L: L.MaxPooling1D(2, data_format="channels_first"),
    )
    | on(
        CUBE,
        max3d=lambda L: L.MaxPooling3D(2),
        average3d=lambda L: L.AveragePooling3D(2, padding="same"),
        global_average3d=lambda L: L.GlobalAveragePooling3D(),
        global_max3d=lambda L: L.GlobalMaxPooling3D(keepdims=True),
    )
)

activation = on(
    IMAGE,
    relu=lambda L: L.ReLU(6.0, negative_slope=0.1, threshold=0.2),
    elu_alpha=lambda L: L.ELU(0.7),
    prelu=lambda L: L.PReLU(shared_axes=[1, 2]),
    prelu_full=lambda L: L.PReLU(alpha_regularizer="l2"),
    leaky=lambda L: L.LeakyReLU(0.15),
    softmax_axis=lambda L: L.Softmax(axis=1),
    softmax_axes=lambda L: L.Softmax(axis=[1, 2]),
    **{
        f"name_{name}": (lambda L, name=name: L.Activation(name))
        for name in "elu exponential gelu hard_sigmoid linear mish relu selu sigmoid softmax "
        "softplus softsign swish tanh".split()
    },
    custom=lambda L: L.Activation(cube_root),
) | {
    f"keras3_{name}": Case(
        lambda lib, x, name=name: lib.layers.Activation(name)(x), (IMAGE,), "keras3"
    )
    for name in "celu glu hard_shrink hard_silu hard_swish hard_tanh leaky_relu log_sigmoid "
    "log_softmax relu6 silu soft_shrink sparse_plus sparse_sigmoid sparsemax squareplus "
    "tanh_shrink".split()
}

norm = on(
    IMAGE,
    batch=lambda L: L.BatchNormalization(epsilon=0.01, momentum=0.7),
    batch_bare=lambda L: L.BatchNormalization(center=False, scale=False),
    batch_axis=lambda L: L.BatchNormalization(axis=1, scale=False),
    batch_half=lambda L: L.BatchNormalization(dtype="mixed_float16"),
    layer=lambda L: L.LayerNormalization(epsilon=0.02),
    layer_axes=lambda L: L.LayerNormalization(axis=(1, 3), center=False),
    layer_first=lambda L: L.LayerNormalization(axis=[1]),
    group=lambda L: L.GroupNormalization(2, epsilon=0.01),
    group_instance=lambda L: L.GroupNormalization(-1, scale=False),
    group_axis=lambda L: L.GroupNormalization(3, axis=1),
    unit=lambda L: L.UnitNormalization(axis=(1, 2)),
    rescaling=lambda L: L.Rescaling(1 / 127.5, offset=-1.0),
    rescaling_list=lambda L: L.Rescaling([0.1, 0.2, 0.3, 0.4], offset=[1.0, 2.0, 3.0, 4.0]),
    resizing=lambda L: L.Resizing(4, 9),
    resizing_nearest=lambda L: L.Resizing(4, 9, interpolation="nearest"),
    resizing_crop=lambda L: L.Resizing(3, 5, crop_to_aspect_ratio=True),
    resizing_bicubic=lambda L: L.Resizing(9, 4, interpolation="bicubic"),
    center_crop=lambda L: L.CenterCrop(3, 4),
) | {
    name: Case(
        lambda lib, x, o=options: (
            lib.layers.Normalization(**o)
            if "mean" in o
            else adapted(lib, lib.layers.Normalization(**o), IMAGE)
        )(x),
        (IMAGE,),
    )
    for name, options in {
        "adapted": {},
        "adapted_none": {"axis": None},
        "adapted_axes": {"axis": (1, 3)},
        "adapted_invert": {"invert": True},
        "fixed": {"mean": 2.0, "variance": 3.0},
        "fixed_lists": {"mean": [1.0, 2, 3, 4], "variance": [4.0, 3, 2, 1], "invert": True},
    }.items()
}

random_layers = on(
    IMAGE,
    flip=lambda L: L.RandomFlip("horizontal"),
    rotation=lambda L: L.RandomRotation(0.2, fill_mode="nearest"),
    zoom=lambda L: L.RandomZoom(0.2, 0.1),
    translation=lambda L: L.RandomTranslation(0.1, 0.2),
    contrast=lambda L: L.RandomContrast(0.3),
    brightness=lambda L: L.RandomBrightness(0.3, value_range=(0, 1)),
)

recurrent = on(
    SEQUENCE,
    rnn=lambda L: L.SimpleRNN(4, go_backwards=True, return_sequences=True),
    lstm=lambda L: L.LSTM(4, return_sequences=True, unit_forget_bias=False),
    lstm_unrolled=lambda L: L.LSTM(4, unroll=True, use_bias=False, recurrent_dropout=0.2),
    lstm_activations=lambda L: L.LSTM(4, activation="relu", recurrent_activation="hard_sigmoid"),
    lstm_states=lambda L: L.LSTM(4, return_state=True, return_sequences=True, dropout=0.1),
    gru=lambda L: L.GRU(4, return_sequences=True),
    gru_reset_before=lambda L: L.GRU(4, reset_after=False, go_backwards=True),
    gru_state=lambda L: L.GRU(4, return_state=True, use_bias=False),
    rnn_cell=lambda L: L.RNN(L.LSTMCell(4), return_sequences=True),
    rnn_gru_cell=lambda L: L.RNN(L.GRUCell(4, reset_after=False), go_backwards=True),
    rnn_stacked=lambda L: L.RNN([L.GRUCell(3), L.LSTMCell(4), L.SimpleRNNCell(2)]),
    half=lambda L: L.LSTM(4, dtype="mixed_bfloat16"),
    **{
        f"bidirectional_{mode}": (
            lambda L, mode=mode: L.Bidirectional(
                L.LSTM(4, return_sequences=True), merge_mode=mode
            )
        )
        for mode in ("concat", "sum", "mul", "ave", None)
    },
    bidirectional_last=lambda L: L.Bidirectional(L.GRU(4)),
    bidirectional_states=lambda L: L.Bidirectional(L.LSTM(3, return_state=True)),
    bidirectional_two=lambda L: L.Bidirectional(
        L.LSTM(4), backward_layer=L.LSTM(4, activation="relu", go_backwards=True)
    ),
    bidirectional_cells=lambda L: L.Bidirectional(L.RNN(L.GRUCell(3), return_sequences=True)),
    time_distributed=lambda L: L.TimeDistributed(L.Dense(3, "relu")),
    masked=lambda L: L.Masking(0.5),
) | on(
    (3, 6, 6, 2),
    conv_lstm=lambda L: L.ConvLSTM2D(3, 2, padding="same", return_sequences=True),
    conv_lstm_last=lambda L: L.ConvLSTM2D(
        3, 2, dilation_rate=2, recurrent_activation="hard_sigmoid", go_backwards=True
    ),
    conv_lstm_states=lambda L: L.ConvLSTM2D(3, 2, return_state=True, use_bias=False),
    time_distributed_conv=lambda L: L.TimeDistributed(L.Conv2D(3, 2, activation="relu")),
    bidirectional_conv=lambda L: L.Bidirectional(L.ConvLSTM2D(2, 2)),
) | on((4, 6, 2), conv_lstm1d=lambda L: L.ConvLSTM1D(3, 2, strides=2)) | on(
    (3, 4, 4, 4, 2), conv_lstm3d=lambda L: L.ConvLSTM3D(3, 2)
) | {
    "initial_state": Case(
        lambda lib, x, h, c: lib.layers.LSTM(4)(x, initial_state=[h, c]),
        (SEQUENCE, (4,), (4,)),
    ),
    "initial_state_gru": Case(
        lambda lib, x, h: lib.layers.GRU(4, return_sequences=True)(x, initial_state=h),
        (SEQUENCE, (4,)),
    ),
    "explicit_mask": Case(
        lambda lib, x, m: lib.layers.LSTM(4)(x, mask=m), (SEQUENCE, (5, bool)),
    ),
    "two_masks": Case(
        lambda lib, x: lib.layers.GRU(4)(
            lib.layers.Masking(0.5)(lib.layers.Masking(1.0)(x))), (SEQUENCE,),
    ),
}  # fmt: skip

tokens_ = tokens(
    embedding=lambda lib, t: lib.layers.Embedding(7, 4)(t),
    embedding_regularized=lambda lib, t: lib.layers.Embedding(
        7, 4, embeddings_regularizer="l2", embeddings_constraint="unit_norm"
    )(t),
    masked_lstm=lambda lib, t: lib.layers.LSTM(4)(lib.layers.Embedding(7, 4, mask_zero=True)(t)),
    masked_bidirectional=lambda lib, t: lib.layers.Bidirectional(
        lib.layers.GRU(4, return_sequences=True)
    )(lib.layers.Embedding(7, 4, mask_zero=True)(t)),
    masked_average=lambda lib, t: lib.layers.GlobalAveragePooling1D()(
        lib.layers.Embedding(7, 4, mask_zero=True)(t)
    ),
    masked_attention=lambda lib, t: masked_attention(lib, t),
    masked_op=lambda lib, t: lib.layers.LSTM(4)(
        lib.layers.Embedding(7, 4, mask_zero=True)(t) * 2.0 + 1.0
    ),
    masked_sum=lambda lib, t: masked_sum(lib, t),
    masked_chain=lambda lib, t: lib.layers.LSTM(4)(
        lib.layers.Dropout(0.1)(
            lib.layers.LayerNormalization()(
                lib.layers.Dense(3, "relu")(lib.layers.Embedding(7, 4, mask_zero=True)(t))
            )
        )
    ),
    masked_concat=lambda lib, t: masked_concat(lib, t),
    one_hot=lambda lib, t: lib.layers.CategoryEncoding(7, output_mode="multi_hot")(t),
    count=lambda lib, t: lib.layers.CategoryEncoding(7, output_mode="count")(t),
)


def masked_attention(lib: Any, t: Any) -> Any:
    """A masked embedding attends to itself."""
    x = lib.layers.Embedding(7, 4, mask_zero=True)(t)
    return lib.layers.GlobalAveragePooling1D()(lib.layers.MultiHeadAttention(2, 3)(x, x))


def masked_sum(lib: Any, t: Any) -> Any:
    """Two masked embeddings are added by `+`, which keeps masks in one Keras only."""
    a = lib.layers.Embedding(7, 4, mask_zero=True)(t)
    b = lib.layers.Embedding(7, 4, mask_zero=True)(t)
    return lib.layers.GRU(3)(a + b)


def masked_concat(lib: Any, t: Any) -> Any:
    """Masked embeddings through merge layers."""
    a = lib.layers.Embedding(7, 4, mask_zero=True)(t)
    b = lib.layers.Embedding(7, 4, mask_zero=True)(t)
    x = lib.layers.Concatenate()([lib.layers.Add()([a, b]), lib.layers.Multiply()([a, b])])
    return lib.layers.GRU(3)(x)


merging = merge(
    IMAGE, IMAGE, IMAGE,
    add=lambda L: L.Add(),
    average=lambda L: L.Average(),
    maximum=lambda L: L.Maximum(),
    minimum=lambda L: L.Minimum(),
    multiply=lambda L: L.Multiply(),
    concatenate=lambda L: L.Concatenate(axis=1),
) | merge(
    VECTOR, VECTOR,
    subtract=lambda L: L.Subtract(),
    dot=lambda L: L.Dot(axes=1, normalize=True),
) | merge(SEQUENCE, (4, 6), dot_axes=lambda L: L.Dot(axes=(2, 2))) | merge(
    IMAGE, (1, 1, 4), broadcast=lambda L: L.Multiply()
)  # fmt: skip

attention = merge(
    SEQUENCE, (4, 6), (4, 6),
    attention=lambda L: L.Attention(use_scale=True, dropout=0.1),
    attention_concat=lambda L: L.Attention(score_mode="concat"),
    additive=lambda L: L.AdditiveAttention(use_scale=False),
    additive_scale=lambda L: L.AdditiveAttention(),
) | {
    "attention_causal": Case(
        lambda lib, x: lib.layers.Attention()([x, x], use_causal_mask=True), (SEQUENCE,)
    ),
    "attention_scores": Case(
        lambda lib, x: lib.layers.Attention()([x, x], return_attention_scores=True), (SEQUENCE,)
    ),
    "attention_masks": Case(
        lambda lib, x, m, n: lib.layers.Attention()([x, x], mask=[m, n]),
        (SEQUENCE, (5, bool), (5, bool)),
    ),
    "heads": Case(
        lambda lib, x, y: lib.layers.MultiHeadAttention(
            2, 3, value_dim=4, output_shape=5, dropout=0.1)(x, y),
        (SEQUENCE, (4, 3)),
    ),
    "heads_no_bias": Case(
        lambda lib, x: lib.layers.MultiHeadAttention(
            2, 3, use_bias=False, kernel_regularizer="l2")(x, x, x),
        (SEQUENCE,),
    ),
    "heads_key": Case(
        lambda lib, q, v, k: lib.layers.MultiHeadAttention(2, 3)(q, v, key=k),
        (SEQUENCE, (4, 6), (4, 2)),
    ),
    "heads_mask": Case(
        lambda lib, x, m: lib.layers.MultiHeadAttention(2, 3)(x, x, attention_mask=m),
        (SEQUENCE, (5, 5, bool)),
    ),
    "heads_causal": Case(
        lambda lib, x: lib.layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
        (SEQUENCE,),
    ),
    "heads_scores": Case(
        lambda lib, x: lib.layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True),
        (SEQUENCE,),
    ),
    "heads_axes": Case(
        lambda lib, x: lib.layers.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x), (IMAGE,)
    ),
    "heads_axis": Case(
        lambda lib, x: lib.layers.MultiHeadAttention(2, 3, attention_axes=2)(x, x), (IMAGE,)
    ),
    "heads_half": Case(
        lambda lib, x: lib.layers.MultiHeadAttention(2, 3, dtype="mixed_float16")(x, x),
        (SEQUENCE,),
    ),
}  # fmt: skip

preprocessing = {
    "discretization": Case(
        lambda lib, x: lib.layers.Discretization(bin_boundaries=[-1.0, 0.0, 0.5])(x), (VECTOR,)
    ),
    "discretization_adapted": Case(
        lambda lib, x: adapted(lib, lib.layers.Discretization(num_bins=4), VECTOR)(x), (VECTOR,)
    ),
    "discretization_one_hot": Case(
        lambda lib, x: lib.layers.Discretization(
            bin_boundaries=[-1.0, 0.5], output_mode="one_hot")(x),
        ((1,),),
    ),
    "category_one_hot": Case(
        lambda lib, x: lib.layers.CategoryEncoding(7, output_mode="one_hot")(x), ((1, int),)
    ),
    "hashing": Case(lambda lib, x: lib.layers.Hashing(5, salt=3)(x), ((4, int),)),
    "integer_lookup": Case(
        lambda lib, x: lib.layers.IntegerLookup(vocabulary=[2, 5, 3])(x), ((4, int),)
    ),
    "hashed_crossing": Case(
        lambda lib, x, y: lib.layers.HashedCrossing(5, output_mode="one_hot")((x, y)),
        ((1, int), (1, int)),
    ),
}  # fmt: skip

keras3_only = {
    name: Case(build, shapes, "keras3")
    for name, (build, shapes) in {
        "spectral": (
            lambda lib, x: lib.layers.SpectralNormalization(
                lib.layers.Conv2D(5, 3), power_iterations=3
            )(x),
            (IMAGE,),
        ),
        "rms": (lambda lib, x: lib.layers.RMSNormalization()(x), (IMAGE,)),
        "layer_rms": (lambda lib, x: lib.layers.LayerNormalization(rms_scaling=True)(x), (IMAGE,)),
        "grouped_query": (
            lambda lib, x: lib.layers.GroupQueryAttention(3, 4, 2)(x, x), (SEQUENCE,)
        ),
        "reversible": (
            lambda lib, t: lib.layers.ReversibleEmbedding(7, 4, tie_weights=True)(t), ((5, int),)
        ),
        "adaptive": (lambda lib, x: lib.layers.AdaptiveAveragePooling2D((2, 3))(x), (IMAGE,)),
        "adaptive_max": (lambda lib, x: lib.layers.AdaptiveMaxPooling1D(2)(x), (SEQUENCE,)),
        "zero_output_for_mask": (
            lambda lib, t: lib.layers.LSTM(3, return_sequences=True, zero_output_for_mask=True)(
                lib.layers.Embedding(7, 4, mask_zero=True)(t)), ((5, int),),
        ),
        "up_lanczos": (
            lambda lib, x: lib.layers.UpSampling2D(2, interpolation="lanczos5")(x), (IMAGE,)
        ),
        "depthwise1d_same": (
            lambda lib, x: lib.layers.DepthwiseConv1D(3, padding="same")(x), (SEQUENCE,)
        ),
        "resizing_pad": (
            lambda lib, x: lib.layers.Resizing(5, 5, pad_to_aspect_ratio=True)(x), (IMAGE,)
        ),
        "heads_gated": (
            lambda lib, x: lib.layers.MultiHeadAttention(2, 3, use_gate=True)(x, x), (SEQUENCE,)
        ),
        "mel": (
            lambda lib, x: lib.layers.MelSpectrogram(
                fft_length=16, sequence_stride=8, num_mel_bins=4)(x), ((64,),),
        ),
        "pipeline": (
            lambda lib, x: lib.layers.Pipeline([lib.layers.Rescaling(2.0)])(x), (IMAGE,)
        ),
        "sequential_in_time": (
            lambda lib, x: lib.layers.TimeDistributed(
                lib.Sequential([lib.layers.Dense(3, "relu"), lib.layers.Dense(2)]))(x),
            (SEQUENCE,),
        ),
    }.items()
}  # fmt: skip

LAYERS: dict[str, dict[str, Case]] = {
    "dense": dense, "lambda": lambdas, "conv": conv, "pool": pool,
    "activation": activation, "norm": norm, "random": random_layers,
    "recurrent": recurrent, "tokens": tokens_, "merge": merging,
    "attention": attention, "preprocessing": preprocessing, "keras3": keras3_only,
}  # fmt: skip


def inputs(case: Case, batch: int = 3, seed: int = 1) -> list[np.ndarray]:
    """Random arrays for a case: normal floats, tokens below 7, booleans mostly True."""
    rng = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for shape in case.shapes:
        kind = shape[-1] if isinstance(shape[-1], type) else float
        dims = (batch, *(d for d in shape if not isinstance(d, type)))
        if kind is int:
            arrays.append(rng.integers(0, 7, dims).astype("int32"))
        elif kind is bool:
            value = rng.random(dims) < 0.7
            value[:, 0] = True  # a row without any key is undefined
            arrays.append(value)
        else:
            arrays.append(rng.normal(size=dims).astype("float32"))
    return arrays


def symbolic(lib: Any, case: Case, prefix: str = "in") -> list[Any]:
    """The inputs of a case in one Keras."""
    names = {int: "int32", bool: "bool", float: "float32"}
    kinds = [s[-1] if isinstance(s[-1], type) else float for s in case.shapes]
    dims = [tuple(d for d in s if not isinstance(d, type)) for s in case.shapes]
    return [
        lib.Input(d, dtype=names[k], name=f"{prefix}{n}")
        for n, (d, k) in enumerate(zip(dims, kinds, strict=True))
    ]


def build_cases(lib: Any, cases: dict[str, Case]) -> tuple[Any, list[np.ndarray], list[str]]:
    """One model of many cases side by side, with random weights.

    Returns:
        The model, its inputs, and the name of the case of each output.
    """
    fresh(lib)
    tensors, results, arrays, names = [], [], [], []
    for number, (name, case) in enumerate(cases.items()):
        given = symbolic(lib, case, f"in{number}_")
        made = case.build(lib, *given)
        flat = list(made) if isinstance(made, (list, tuple)) else [made]
        results += flat
        names += [name] * len(flat)
        tensors += given
        arrays += inputs(case)
    return randomized(lib.Model(tensors, results)), arrays, names


def randomized(model: Any, seed: int = 0) -> Any:
    """Random float weights; variances and gammas positive, preprocessing as adapted."""
    rng = np.random.default_rng(seed)
    kept = {
        id(w) for x in model.layers if hasattr(x, "adapt") or hasattr(x, "vector_u")
        for w in x.weights
    }  # fmt: skip
    for w in model.weights:
        if id(w) in kept or "float" not in str(getattr(w.dtype, "name", w.dtype)):
            continue
        value = rng.normal(0, 0.5, tuple(w.shape))
        name = getattr(w, "path", w.name)
        w.assign(np.abs(value) + 0.5 if "variance" in name or "gamma" in name else value)
    return model
