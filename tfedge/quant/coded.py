"""Exporting kernels with one scale a channel where the converter takes one scale only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.quantized import CodedKernel, export

_LEAST_SHARE = 1e-3  # Of the largest scale: biases are exported in steps of the one scale.


def by_codes(kernel: Any, quantize: Callable[[Any, Any], Any], limit: Any, bits: int) -> Any:
    """The kernel's codes times one number, which one scale represents exactly.

    The codes and the scales are noted down in the present export, for the file to be mended.

    Args:
        kernel: The kernel's values: Dense [inputs, units] or Conv2DTranspose
            [h, w, filters, inputs].
        quantize: Gives the kernel fake-quantized to [-limit, limit] by channel.
        limit: Largest values, [channels].
        bits: Of a code.
    """
    top = 2.0 ** (bits - 1) - 1.0
    with tf.init_scope():
        values = np.asarray(quantize(tf.convert_to_tensor(kernel), limit))
        scales = np.asarray(limit, np.float32) / np.float32(top)
    first = -1 if values.ndim == 2 else 2
    shape = [1] * values.ndim
    shape[first] = -1
    codes = np.clip(np.round(values / scales.reshape(shape)), -top, top)
    scale = float(max(scales.min(), _LEAST_SHARE * scales.max()))
    channels_first = codes.T if codes.ndim == 2 else codes.transpose(2, 0, 1, 3)
    now = export()
    if now is not None:
        now.kernels.append(CodedKernel(channels_first.astype(np.int8), scales, scale))
    return tf.quantization.fake_quant_with_min_max_args(
        tf.constant(codes * scale, tf.float32),
        -top * scale,
        top * scale,
        num_bits=bits,
        narrow_range=True,
    )


@contextlib.contextmanager
def biases_noted(layer: Any) -> Iterator[None]:
    """Notes a layer's bias in the present export: what the converter rounds in another step.

    With a kernel whose codes are noted within the block, or as a number where it is one number.

    Args:
        layer: A built layer.
    """
    now = export()
    before = 0 if now is None else len(now.kernels)
    yield
    if now is None or not getattr(layer, "use_bias", False):
        return
    with tf.init_scope():
        bias = np.asarray(layer.bias)
    if len(now.kernels) > before and bias.shape == now.kernels[-1].scales.shape:
        now.kernels[-1] = replace(now.kernels[-1], bias=bias)
    elif bias.size and np.ptp(bias) == 0:
        now.uniform_biases.append(float(bias.flat[0]))
