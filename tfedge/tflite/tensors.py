"""Tensors of a TFLite file as data, and the arithmetic between real values and their codes.

The affine code of TFLite's quantization specification: real = scale * (code - zero_point), with one
scale and zero point for the tensor or one per index of an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.errors import InputError


@dataclass(frozen=True, eq=False)
class TensorSpec:
    """One tensor of a file.

    Attributes:
        name: Keras input or output name where the file's signature gives one, else the tensor's.
        shape: Its shape as the file declares it; a free axis counts as the file's default (1).
        dtype: numpy name of its elements' type, for example "int8".
        scale: Scales, float32 [1] per tensor, [C] per channel, [0] where it is not quantized.
        zero_point: Zero points, int32, of the same length.
        index: Tensor number in the main subgraph.
        axis: The axis that per-channel scales run along.
        free: Axes whose size may be chosen when the file is run.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray
    zero_point: np.ndarray
    index: int
    axis: int = 0
    free: tuple[int, ...] = ()

    @property
    def numpy_dtype(self) -> np.dtype:
        """The dtype as numpy's object."""
        return np.dtype(self.dtype)

    @property
    def quantized(self) -> bool:
        """True where elements are codes of real values."""
        return bool(self.scale.size) and self.numpy_dtype.kind in "iu"

    @property
    def step(self) -> np.ndarray:
        """The scale, shaped so that it broadcasts over the tensor; 0 where it is not quantized."""
        return self.along(self.scale) if self.quantized else np.zeros((), np.float32)

    def along(self, values: np.ndarray) -> np.ndarray:
        """Shapes a per-tensor or per-channel vector to broadcast over the tensor."""
        if values.size == 1:
            return values.reshape(())
        shape = [1] * max(len(self.shape), 1)
        shape[self.axis] = -1
        return values.reshape(shape)

    @classmethod
    def from_details(cls, details: Mapping[str, Any], name: str = "") -> TensorSpec:
        """Builds it from the runtime's tensor details, under another name where one is given."""
        quantization = details["quantization_parameters"]
        signature = details.get("shape_signature", details["shape"])
        return cls(
            name=name or str(details["name"]),
            shape=tuple(int(d) for d in details["shape"]),
            dtype=np.dtype(details["dtype"]).name,
            scale=np.asarray(quantization["scales"], np.float32),
            zero_point=np.asarray(quantization["zero_points"], np.int32),
            index=int(details["index"]),
            axis=int(quantization["quantized_dimension"]),
            free=tuple(i for i, d in enumerate(signature) if int(d) < 0),
        )


def codes(real: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Nearest codes of real values, NOT clipped to the dtype: round(real / scale) + zero_point.

    Args:
        real: Real values, of a shape that the tensor's scales broadcast with.
        spec: A quantized tensor.

    Returns:
        float64 array of whole numbers (halves round to even, as XNNPACK does).
    """
    scaled = np.asarray(real, np.float64) / spec.along(spec.scale)
    return np.rint(scaled) + spec.along(spec.zero_point)


def quantize(real: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Real values -> the tensor's dtype; values beyond its range saturate.

    Args:
        real: Real values (any real dtype), of the tensor's shape but for the batch.
        spec: The tensor; one that is not quantized gets a checked cast.

    Returns:
        Array of `spec.dtype`.

    Raises:
        InputError: NaN; or a fraction or overflow for a tensor of plain integers; or text.
    """
    real = np.asarray(real)
    if real.dtype.kind not in "fiub":
        raise InputError(f"input '{spec.name}' needs numbers", f"dtype {real.dtype}")
    if real.dtype.kind == "f" and np.isnan(real).any():
        raise InputError(f"input '{spec.name}' holds NaN", f"{int(np.isnan(real).sum())} of them")
    if spec.quantized:
        limits = np.iinfo(spec.dtype)
        return np.clip(codes(real, spec), limits.min, limits.max).astype(spec.dtype)
    with np.errstate(invalid="ignore"):
        cast = real.astype(spec.dtype)
    if spec.numpy_dtype.kind in "iub" and not np.array_equal(cast, real):
        raise InputError(
            f"input '{spec.name}' takes {spec.dtype} values",
            f"{real.dtype} values that are not whole or do not fit",
        )
    return cast


def saturated(real: np.ndarray, spec: TensorSpec) -> int:
    """How many values `quantize` moves to an end of the tensor's range; 0 for plain numbers."""
    if not spec.quantized:
        return 0
    wanted, limits = codes(real, spec), np.iinfo(spec.dtype)
    return int(np.count_nonzero((wanted < limits.min) | (wanted > limits.max)))


def value_range(spec: TensorSpec) -> tuple[float, float]:
    """The least and the largest real value that a quantized tensor can hold."""
    limits, scale = np.iinfo(spec.dtype), spec.scale.astype(np.float64)
    low, high = (scale * (end - spec.zero_point) for end in (limits.min, limits.max))
    return float(low.min()), float(high.max())


def dequantize(stored: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The real values behind a tensor's elements: scale * (code - zero_point).

    Args:
        stored: Elements as the file has them.
        spec: The tensor.

    Returns:
        float32 array; a tensor that is not quantized keeps its values and dtype (float16 widens).
    """
    if spec.quantized:
        shifted = stored.astype(np.float64) - spec.along(spec.zero_point)
        return (shifted * spec.along(spec.scale)).astype(np.float32)
    return stored.astype(np.float32) if stored.dtype.kind == "f" else stored
