"""Quantization schemes: the words `w8a8`, `w8a16`, ... and what each one stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfedge.errors import InputError, did_you_mean


@dataclass(frozen=True)
class QuantScheme:
    """How weights and activations are stored and computed.

    Attributes:
        name: The word used in recipes, flags and records.
        weight_bits: Bits per weight in the file (8, 16 or 32).
        activation_bits: Bits per activation at run time (8, 16 or 32).
        full_integer: True where no float tensor may stand between input and output.
        needs_ranges: True where activation ranges are needed (from QAT or from calibration).
        doc: One line for tables and `--help`.
    """

    name: str
    weight_bits: int
    activation_bits: int
    full_integer: bool
    needs_ranges: bool
    doc: str


SCHEMES: dict[str, QuantScheme] = {
    s.name: s
    for s in (
        QuantScheme(
            "w8a8",
            8,
            8,
            True,
            True,
            "int8 weights per channel, int8 activations (asymmetric); all integer",
        ),
        QuantScheme(
            "w8a16",
            8,
            16,
            True,
            True,
            "int8 weights per channel, int16 activations (symmetric); all integer. Slower than "
            "float32 on a CPU: it pays for accuracy, on Ethos-U and on microcontrollers",
        ),
        QuantScheme(
            "w4a8",
            4,
            8,
            True,
            True,
            "int4 weights of dense layers and convolutions (these unpacked at each inference: a "
            "smaller file, not a faster one), other weights int8, int8 activations; all integer",
        ),
        QuantScheme(
            "w8_dynamic",
            8,
            32,
            False,
            False,
            "int8 weights, float activations quantized on the fly where a kernel exists (depthwise "
            "convolutions compute in float32, which is faster)",
        ),
        QuantScheme(
            "w8_weight_only",
            8,
            32,
            False,
            False,
            "int8 weights, float32 arithmetic: a quarter of the bytes at float32's speed",
        ),
        QuantScheme(
            "float16", 16, 32, False, False, "float16 storage, float32 arithmetic on a CPU"
        ),
        QuantScheme("float32", 32, 32, False, False, "no quantization: the baseline"),
    )
}


CPUS: dict[str, str] = {
    "x86_64": "32-bit sums where they cannot overflow, and blocks of depthwise channels: there the "
    "runtime has fast kernels for both, the best with AVX-512",
    "arm64": "64-bit sums and the converter's own ops: the runtime's kernels with 32-bit sums take "
    "3 to 4 times the instructions there; as compilers and microcontrollers want them, too",
}
"""Processors that files with 16-bit activations may be written for; the first is the default."""

DEPTHWISE: dict[str, str] = {
    "integer": "the fastest 16-bit integer form, by an estimate of time and a limit of bytes",
    "stock": "as the converter writes it",
    "float": "in float32 between DEQUANTIZE and QUANTIZE: fast, but hybrid, not full integer",
}
"""What depthwise convolutions with 16-bit activations may become; the first is the default."""


@dataclass(frozen=True)
class Int16:
    """How files with 16-bit activations are written.

    Attributes:
        cpu: One of `CPUS`.
        depthwise: One of `DEPTHWISE`.
    """

    cpu: str = next(iter(CPUS))
    depthwise: str = next(iter(DEPTHWISE))

    @classmethod
    def of(cls, given: Mapping[str, str] | None) -> Int16:
        """Reads a mapping of what is not the default.

        Raises:
            InputError: An unknown key or value; the message suggests the nearest.
        """
        words = {"cpu": CPUS, "depthwise": DEPTHWISE}
        for key, value in (given or {}).items():
            if key not in words:
                raise InputError("unknown option of int16", f"'{key}'", did_you_mean(key, words))
            if value not in words[key]:
                near = did_you_mean(str(value), words[key])
                raise InputError(f"unknown {key} of int16", f"'{value}'", near)
        return cls(**(given or {}))


def get_scheme(name: str) -> QuantScheme:
    """Looks up a scheme.

    Args:
        name: One of `SCHEMES`.

    Raises:
        InputError: The name is not a scheme; the message suggests the nearest.
    """
    if name not in SCHEMES:
        raise InputError("unknown quantization scheme", f"'{name}'", did_you_mean(name, SCHEMES))
    return SCHEMES[name]
