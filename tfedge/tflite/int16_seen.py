"""What calibration data make of a 16-bit file: the codes that each input channel reaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfedge.data import InputSpec, as_batches
from tfedge.tflite.int16_bias import Seen
from tfedge.tflite.interpreter import Interpreter, filled
from tfedge.tflite.tensors import TensorSpec, quantize

SAMPLES = 64
"""At most so many samples are looked at: the file runs in slow kernels meanwhile."""


def codes_seen(data: bytes, wanted: Iterable[tuple[int, int]], samples: Any) -> Seen:
    """Runs a file on samples and notes the lowest and highest code of each input channel.

    One batch and its activations are held in memory at a time.

    Args:
        data: The file; its sums must not overflow, so that the codes are true.
        wanted: (tensor number in the main subgraph, number of channels) of int16 tensors; the
            channels are the last axis, or the whole of a sample that a FULLY_CONNECTED flattens.
        samples: Real values, in any form that `data.as_batches` takes; the first `SAMPLES` count.

    Returns:
        By what is wanted, int64 [channels] each: the lowest code (at most 0) and the highest (at
        least 0).

    Raises:
        InputError: Samples that do not fit.
        ConversionError: The file fails when it is run.
    """
    runner = Interpreter(data, keep_tensors=True)
    found = {key: (np.zeros(key[1], np.int64), np.zeros(key[1], np.int64)) for key in wanted}
    batches = as_batches(
        samples, _specs(runner.inputs), batch=runner.batch, limit=SAMPLES, role="calibration data"
    )
    for arrays in batches:
        stored = {s.name: quantize(arrays[s.name], s) for s in runner.inputs}
        runner.run({k: filled(v, runner.batch) for k, v in stored.items()})
        for (index, channels), (low, high) in found.items():
            codes = runner.tensor(index).reshape(-1, channels)
            np.minimum(low, codes.min(0), out=low)
            np.maximum(high, codes.max(0), out=high)
    return found


def _specs(inputs: Sequence[TensorSpec]) -> tuple[InputSpec, ...]:
    return tuple(InputSpec(s.name, s.shape, "float32" if s.quantized else s.dtype) for s in inputs)
