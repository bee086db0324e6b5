"""The table of rules, and the look-up in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge.graph import rules as r
from tfedge.graph import rules_attention as a
from tfedge.graph import rules_norm as n
from tfedge.graph import rules_quantized as q
from tfedge.graph import rules_recurrent as s
from tfedge.graph.labels import Marks
from tfedge.graph.op_tables import KERAS_OPS, TF_OPS
from tfedge.graph.rules_einsum import einsum_dense
from tfedge.graph.site import Site

Rule = Callable[[Site], "Marks | np.ndarray | list[Marks]"]


def _many(rule: Rule, names: str) -> dict[str | type, Rule]:
    return dict.fromkeys(names.split(), rule)


# Keys are class names for the own layers of either Keras and of tfedge, "op.X" for Keras 3
# operations, "tf.x" for TensorFlow functions in tf_keras models, and classes for a user's layers.
RULES: dict[str | type, Rule] = {
    **_many(r.conv, "Conv1D Conv2D Conv3D"),
    **_many(r.conv_transpose, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    **_many(r.depthwise, "DepthwiseConv1D DepthwiseConv2D"),
    **_many(r.separable, "SeparableConv1D SeparableConv2D"),
    **_many(r.locally_connected, "LocallyConnected1D LocallyConnected2D"),
    **_many(r.dense, "Dense"),
    **_many(n.batch_norm, "BatchNormalization SyncBatchNormalization"),
    **_many(n.layer_norm, "LayerNormalization"),
    **_many(n.group_norm, "GroupNormalization"),
    **_many(n.unit_norm, "UnitNormalization"),
    **_many(n.rms_norm, "RMSNormalization"),
    **_many(n.layer_scale, "LayerScale"),
    **_many(n.normalization, "Normalization"),
    **_many(n.spectral_normalization, "SpectralNormalization"),
    **_many(r.prelu, "PReLU"),
    **_many(r.softmax, "Softmax"),
    **_many(r.activation, "Activation"),
    **_many(r.rescaling, "Rescaling"),
    **_many(r.masking, "Masking"),
    **_many(
        r.same,
        "ReLU LeakyReLU ELU ThresholdedReLU Dropout SpatialDropout1D SpatialDropout2D "
        "SpatialDropout3D AlphaDropout GaussianDropout GaussianNoise ActivityRegularization "
        "Identity StochasticDepth",
    ),
    **_many(
        r.spatial,
        "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D "
        "AveragePooling3D AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
        "AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D "
        "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D "
        "UpSampling2D UpSampling3D Resizing CenterCrop RandomCrop RandomFlip RandomTranslation "
        "RandomRotation RandomZoom RandomHeight RandomWidth RandomContrast RandomBrightness",
    ),
    **_many(
        r.global_pool,
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D "
        "GlobalMaxPooling2D GlobalMaxPooling3D",
    ),
    **_many(
        r.elementwise,
        "Add Subtract Multiply Average Maximum Minimum CustomScaleLayer",
    ),
    **_many(r.concatenate, "Concatenate"),
    **_many(r.flatten, "Flatten"),
    **_many(r.reshape, "Reshape"),
    **_many(r.permute, "Permute"),
    **_many(r.repeat_vector, "RepeatVector"),
    **_many(r.embedding, "Embedding"),
    **_many(r.reversible_embedding, "ReversibleEmbedding"),
    **_many(s.recurrent, "LSTM GRU SimpleRNN"),
    **_many(s.conv_lstm, "ConvLSTM1D ConvLSTM2D ConvLSTM3D"),
    **_many(s.rnn, "RNN"),
    **_many(s.bidirectional, "Bidirectional"),
    **_many(s.time_distributed, "TimeDistributed"),
    **_many(a.attention_heads, "MultiHeadAttention"),
    **_many(a.grouped_query_attention, "GroupedQueryAttention"),
    **_many(a.dot_attention, "Attention AdditiveAttention"),
    **_many(a.dot_layer, "Dot"),
    **_many(einsum_dense, "EinsumDense"),
    **_many(r.lambda_layer, "Lambda"),
    **_many(q.wrapped, "TfedgeQuantizeWrapper"),
    **_many(q.same, "InputQuantizer Boundary Requantize Tabled AboveZero"),
    **{f"op.{name}": rule for name, rule in KERAS_OPS.items()},
    **{f"tf.{name}": rule for name, rule in TF_OPS.items()},
}


def is_own_rule(rule: Rule) -> bool:
    """True for the rules of this package, False for a user's."""
    return getattr(rule, "__module__", "").startswith("tfedge.graph.")


def rule_for(layer: Any) -> Rule:
    """The rule of a layer or operation.

    By its class, else that of the Keras class whose `call` it inherits: a subclass that overrides
    `call` computes something else and needs its own rule.
    """
    if type(layer) in RULES:
        return RULES[type(layer)]
    if not hasattr(layer, "trainable"):
        own = type(layer).__module__.split(".")[0] == "keras"
        return RULES.get(f"op.{type(layer).__name__}", r.unknown) if own else r.unknown
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return RULES.get(f"tf.{layer.get_config()['function']}", r.unknown)
    for base in type(layer).__mro__:
        if base in RULES:
            return RULES[base]
        root = base.__module__.split(".")[0]
        if root in ("tf_keras", "keras", "tfedge") and base.__name__ in RULES:
            if getattr(base, "call", None) is getattr(type(layer), "call", None):
                return RULES[base.__name__]
            return r.unknown
    return r.unknown
