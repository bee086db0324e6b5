"""Blocks that several architectures share."""

from __future__ import annotations


def cbr(k, x, n, size=3, strides=1, groups=1, act="relu"):
    """Convolution, batch norm, activation."""
    x = k.L.Conv2D(n, size, strides, padding="same", use_bias=False, groups=groups)(x)
    x = k.L.BatchNormalization()(x)
    return k.L.Activation(act)(x) if act else x


def head(k, x, n=3):
    return k.L.Dense(n)(k.L.GlobalAveragePooling2D()(x))


def mlp(k, x, wide, out):
    return k.L.Dense(out)(k.L.Dense(wide, "gelu")(x))
