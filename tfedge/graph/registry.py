"""The table of rules, and the look-up in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge.graph import rules as r
from tfedge.graph import rules_sequence as s
from tfedge.graph.op_tables import KERAS_OPS, TF_OPS
from tfedge.graph.site import Site

Rule = Callable[[Site], "np.ndarray | list[np.ndarray]"]


def _many(rule: Rule, names: str) -> dict[str | type, Rule]:
    return dict.fromkeys(names.split(), rule)


# Keys are class names for Keras' own layers of either flavour, "op.X" for Keras 3 operations,
# "tf.x" for TensorFlow functions in tf_keras models, and classes for a user's own layers.
RULES: dict[str | type, Rule] = {
    **_many(r.conv, "Conv1D Conv2D Conv3D"),
    **_many(r.conv_transpose, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    **_many(r.depthwise, "DepthwiseConv1D DepthwiseConv2D"),
    **_many(r.separable, "SeparableConv1D SeparableConv2D"),
    **_many(r.dense, "Dense"),
    **_many(r.batch_norm, "BatchNormalization SyncBatchNormalization"),
    **_many(r.layer_norm, "LayerNormalization"),
    **_many(s.group_norm, "GroupNormalization"),
    **_many(s.unit_norm, "UnitNormalization"),
    **_many(s.rms_norm, "RMSNormalization"),
    **_many(s.layer_scale, "LayerScale"),
    **_many(r.prelu, "PReLU"),
    **_many(r.softmax, "Softmax"),
    **_many(r.activation, "Activation"),
    **_many(
        r.same,
        "ReLU LeakyReLU ELU ThresholdedReLU Dropout SpatialDropout1D SpatialDropout2D "
        "SpatialDropout3D AlphaDropout GaussianDropout GaussianNoise ActivityRegularization "
        "Rescaling Masking Identity StochasticDepth",
    ),
    **_many(
        r.spatial,
        "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D "
        "AveragePooling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D "
        "Cropping3D UpSampling1D UpSampling2D UpSampling3D Resizing",
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
    **_many(s.embedding, "Embedding"),
    **_many(s.recurrent, "LSTM GRU SimpleRNN"),
    **_many(s.bidirectional, "Bidirectional"),
    **_many(s.time_distributed, "TimeDistributed"),
    **_many(s.attention_heads, "MultiHeadAttention"),
    **_many(s.dot_attention, "Attention AdditiveAttention"),
    **_many(s.einsum_dense, "EinsumDense"),
    **{f"op.{name}": rule for name, rule in KERAS_OPS.items()},
    **{f"tf.{name}": rule for name, rule in TF_OPS.items()},
}


def rule_for(layer: Any) -> Rule:
    """The rule of a layer or operation.

    By its class, else that of the Keras class whose `call` it inherits: a subclass that overrides
    `call` computes something else and needs its own rule.
    """
    if not hasattr(layer, "trainable"):
        return RULES.get(f"op.{type(layer).__name__}", s.unknown)
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return RULES.get(f"tf.{layer.get_config()['function']}", s.unknown)
    for base in type(layer).__mro__:
        if base in RULES:
            return RULES[base]
        root = base.__module__.split(".")[0]
        if root in ("tf_keras", "keras") and base.__name__ in RULES:
            if getattr(base, "call", None) is getattr(type(layer), "call", None):
                return RULES[base.__name__]
            return s.unknown
    return s.unknown
