"""An EfficientNet for small images (Tan and Le 2019, "EfficientNet", table 1, half the width).

The maps are halved at the second, fourth and sixth stage, so that most of the network works at
16x16: a CPU is to train it.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras

# Expansion, channels, repeats, stride of the first, kernel: six of the paper's stages, width 0.5.
_STAGES = (
    (1, 8, 1, 1, 3),
    (6, 16, 2, 2, 3),
    (6, 24, 2, 1, 5),
    (6, 40, 3, 2, 3),
    (6, 56, 2, 1, 5),
    (6, 96, 2, 2, 5),
)
_STEM, _LAST, _SQUEEZE = 16, 320, 0.25
L2 = 4e-5


def efficientnet_small(shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10) -> Any:
    """An EfficientNet with swish and squeeze-and-excite whose last map is 4x4 at 32x32.

    Args:
        shape: Input (height, width, channels); values scaled to [0, 1].
        classes: Output units.

    Returns:
        An untrained model of about 0.5 M parameters: "image" [N, H, W, C] -> logits [N, classes].
    """
    image = keras.Input(shape, name="image")
    x = _act(_conv(image, _STEM, 3, "stem"), "stem")
    for stage, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES, start=1):
        for i in range(repeats):
            name = f"stage{stage}_block{i + 1}"
            x = _block(x, expansion, channels, (stride if i == 0 else 1, kernel), name)
    x = _act(_conv(x, _LAST, 1, "last"), "last")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(image, logits, name="efficientnet_small")


def _norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)


def _act(x: Any, name: str) -> Any:
    return keras.layers.Activation("swish", name=f"{name}_swish")(x)


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


def _block(x: Any, expansion: int, width: int, form: tuple[int, int], name: str) -> Any:
    """Inverted residual with squeeze-and-excite, whose channels are a quarter of the input's."""
    (stride, kernel), entered = form, x.shape[-1]
    y = x
    if expansion > 1:
        y = _act(_conv(y, entered * expansion, 1, f"{name}_expand"), f"{name}_expand")
    y = keras.layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(y)
    y = _act(_norm(y, f"{name}_depthwise"), f"{name}_depthwise")
    y = _excited(y, max(1, int(entered * _SQUEEZE)), f"{name}_se")
    y = _conv(y, width, 1, f"{name}_project")
    if stride == 1 and entered == width:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y


def _excited(x: Any, width: int, name: str) -> Any:
    """Channels weighted by what all of the map says (Hu et al. 2018)."""
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = keras.layers.Conv2D(width, 1, activation="swish", name=f"{name}_reduce")(y)
    y = keras.layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"{name}_expand")(y)
    return keras.layers.Multiply(name=f"{name}_excite")([x, y])
