"""MobileNetV2 of width 0.35 for small images (Sandler et al. 2018, "MobileNetV2", table 2)."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras

# Expansion, channels at width 1, repeats, stride of the first: the paper's table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
L2 = 4e-5


def mobilenet_v2_035(shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10) -> Any:
    """MobileNetV2 at width 0.35 with a stem and a second stage of stride 1.

    At 32x32 the paper's strides would leave 1x1 maps; with the stem and the second stage at
    stride 1 the last map is 4x4, as is usual for CIFAR.

    Args:
        shape: Input (height, width, channels); values scaled to [0, 1].
        classes: Output units.

    Returns:
        An untrained model of about 0.4 M parameters: "image" [N, H, W, C] -> logits [N, classes].
        As in the paper, the last 1x1 convolution keeps 1280 channels at widths below 1.
    """
    image = keras.Input(shape, name="image")
    x = _conv(image, _width(32), 3, "stem")
    x = keras.layers.ReLU(6.0, name="stem_relu6")(x)
    for stage, (expansion, channels, repeats, stride) in enumerate(_STAGES, start=1):
        for i in range(repeats):
            name = f"stage{stage}_block{i + 1}"
            x = _block(x, expansion, _width(channels), stride if i == 0 else 1, name)
    x = keras.layers.ReLU(6.0, name="last_relu6")(_conv(x, 1280, 1, "last"))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(image, logits, name="mobilenet_v2_035")


def _width(channels: int) -> int:
    """0.35 of the channels as a multiple of 8, at least 8, never below 0.9 of the exact number."""
    exact = 0.35 * channels
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def _norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)


def _conv(x: Any, width: int, size: int, name: str) -> Any:
    x = keras.layers.Conv2D(
        width,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(L2),
        name=f"{name}_conv",
    )(x)
    return _norm(x, name)


def _block(x: Any, expansion: int, width: int, stride: int, name: str) -> Any:
    """Inverted residual: expand 1x1, depthwise 3x3, project 1x1; added where shapes agree."""
    y = x
    if expansion > 1:
        y = _conv(y, x.shape[-1] * expansion, 1, f"{name}_expand")
        y = keras.layers.ReLU(6.0, name=f"{name}_expand_relu6")(y)
    y = keras.layers.DepthwiseConv2D(
        3, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(y)
    y = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu6")(_norm(y, f"{name}_depthwise"))
    y = _conv(y, width, 1, f"{name}_project")
    if stride == 1 and x.shape[-1] == width:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y
