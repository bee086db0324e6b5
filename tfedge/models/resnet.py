"""Residual networks for small images (He et al. 2016, "Deep Residual Learning", section 4.2)."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras

L2 = 1e-4


def resnet8(shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10) -> Any:
    """ResNet-8 of MLPerf Tiny's image classification: 3 stages of one block, 16/32/64 channels.

    Args:
        shape: Input (height, width, channels); values scaled to [0, 1].
        classes: Output units.

    Returns:
        An untrained model of about 78 k parameters: "image" float32 [N, H, W, C] -> logits
        [N, classes]. Banbury et al. 2021, "MLPerf Tiny Benchmark", whose model ends in a softmax;
        here the loss takes logits.
    """
    return _resnet("resnet8", shape, classes, blocks=1)


def resnet20(shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10) -> Any:
    """ResNet-20 for CIFAR: 3 stages of three blocks, 16/32/64 channels.

    Args:
        shape: Input (height, width, channels); values scaled to [0, 1].
        classes: Output units.

    Returns:
        An untrained model of about 0.27 M parameters: "image" [N, H, W, C] -> logits [N, classes].
        Where a stage changes the shape, the shortcut is a 1x1 convolution (option B of the paper).
    """
    return _resnet("resnet20", shape, classes, blocks=3)


def _resnet(name: str, shape: tuple[int, int, int], classes: int, *, blocks: int) -> Any:
    image = keras.Input(shape, name="image")
    x = _conv(image, 16, 3, 1, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, width, stride, f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(image, logits, name=name)


def _conv(x: Any, width: int, size: int, stride: int, name: str) -> Any:
    """Convolution without bias, and batch norm."""
    x = keras.layers.Conv2D(
        width,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(L2),
        name=f"{name}_conv",
    )(x)
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def _block(x: Any, width: int, stride: int, name: str) -> Any:
    """Two 3x3 convolutions beside the identity, or a 1x1 convolution where the shape changes."""
    y = _conv(x, width, 3, stride, f"{name}_a")
    y = keras.layers.ReLU(name=f"{name}_a_relu")(y)
    y = _conv(y, width, 3, 1, f"{name}_b")
    if stride != 1 or x.shape[-1] != width:
        x = _conv(x, width, 1, stride, f"{name}_skip")
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([x, y]))
