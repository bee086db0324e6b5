"""What a stage leaves behind: Record, Timing, Drift, certificate rows; JSON lines in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCES = ("measured", "simulated", "emulated")
HOST = "host"
"""The target that scores on other targets are held against."""


@dataclass(frozen=True)
class CertificateRow:
    """One op of a TFLite file, in execution order.

    Attributes:
        index: Position in the main subgraph's operator list.
        op: Builtin operator name, for example "CONV_2D".
        layer: Name of the Keras layer behind it, or "" where none is known.
        types: Dtypes as "int8,int8,int32->int8" (inputs -> outputs; absent inputs are left out).
        delegated: True where XNNPACK runs it.
        reason: Why it is not delegated, or "".
    """

    index: int
    op: str
    layer: str
    types: str
    delegated: bool
    reason: str


@dataclass(frozen=True)
class LayerDrift:
    """The difference of one layer's output between the reference and the file.

    Attributes:
        layer: Keras layer name.
        tensor: Name of the tensor in the file.
        sqnr_db: 10*log10(sum(ref^2) / sum((ref-file)^2)) in dB; infinite where equal.
        max_step: Largest difference in quantization steps of the file's tensor (0 for float).
        cosine: Cosine of the angle between the two outputs, flattened.
    """

    layer: str
    tensor: str
    sqnr_db: float
    max_step: float
    cosine: float


@dataclass(frozen=True)
class OpAgreement:
    """How one op of a file, given the file's own codes, agrees with its simulation.

    Attributes:
        index: Position of the op in the file.
        op: Its name, for example "CONV_2D".
        layer: Keras layer behind it, or "".
        elements: Number of output elements compared; 0 where the op could not be compared.
        exact: Share of elements with equal codes, 0 to 1.
        within_one: Share of elements at most one step apart.
        max_steps: Largest difference in steps of the op's output.
        reason: Why the op was not compared, or "".
    """

    index: int
    op: str
    layer: str
    elements: int = 0
    exact: float = 0.0
    within_one: float = 0.0
    max_steps: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Drift:
    """How far a file's outputs are from a reference.

    Attributes:
        max_step: Largest output difference in quantization steps (0 where the output is float).
        within_one_step: Share of output elements that differ by at most one step, 0 to 1 (for a
            float output: within 1e-5 of the reference's largest magnitude).
        sqnr_db: Signal to quantization noise over all outputs, dB.
        cosine: Cosine similarity over all outputs.
        first_layer: First layer, in execution order, whose SQNR falls below the threshold, or "".
        worst_layer: The layer of the lowest SQNR, or "".
        top1_agreement: Share of samples whose argmax agrees; None for outputs that are not 2-D.
        samples: Number of samples compared.
        layers: The per-layer rows, in execution order.
    """

    max_step: float
    within_one_step: float
    sqnr_db: float
    cosine: float
    first_layer: str
    worst_layer: str
    top1_agreement: float | None = None
    samples: int = 0
    layers: tuple[LayerDrift, ...] = ()


@dataclass(frozen=True)
class Score:
    """How good a file is on a target, beside this machine's runtime on the same samples.

    Attributes:
        samples: Number of test samples that were run.
        of: Number of test samples that there are.
        scores: Named scores on the target, for example {"accuracy": 0.915}.
        host: Those of this machine.
        standard_error: Of each accuracy p as an estimate for all there is: sqrt(p (1 - p) / N) of
            the binomial distribution (0 where all are right says nothing). The difference to the
            host's is not blurred by it: both saw the same samples.
        different: For each accuracy, in how many samples a prediction is not the host's.
        difference_error: Standard error of the accuracy's difference to the host's, from the
            samples that only one of them has right; see `tfedge.scoring.Paired`.
        p_value: Of the exact McNemar test of that difference.
        note: What must be said of the scores, or "".
        error: Why there are no scores, or "".

    The three of the difference are empty on the host itself, and in records of older versions.
    """

    samples: int = 0
    of: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    standard_error: dict[str, float] = field(default_factory=dict)
    error: str = ""
    different: dict[str, int] = field(default_factory=dict)
    difference_error: dict[str, float] = field(default_factory=dict)
    p_value: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Timing:
    """Latency (or another cost) of one file on one target.

    Times are milliseconds per inference. `source` says what kind of number it is: "measured" on
    hardware, "simulated" by a model of it (one value, in `min_ms` and `p50_ms`, of `cycles`),
    "emulated" (instruction counts or memory, never latency). Numbers of different sources, targets
    or thread counts are never ranked against each other. What a target does not tell is None, 0 or
    "".

    A simulated time where some ops run elsewhere has `min_ms` only: no inference takes less.

    Attributes:
        instructions: Per inference; of emulated cores, or by the processor's counters.
        delegate: What runs the `delegated_ops`: "XNNPACK", "NPU" or "TFLM".
        cycles: Per inference: of the simulated unit, or of the processor in user space.
        sram_peak_bytes: On-chip memory that the tensors need at most.
        dram_traffic_bytes: Bytes read from and written to DRAM in an inference.
        flash_traffic_bytes: Bytes read from flash in an inference.
        arena_bytes: Memory that the microcontroller runtime asks for.
        score: Accuracy there, beside this machine's.
        device: What the device is, with its runtime, for example "Raspberry Pi 4; LiteRT 2.3.0".
        cpus: Its processors, 0 where unknown.
        governor: The CPU frequency governor during the measurement.
        temperature_before: Degrees Celsius of the CPU before it.
        temperature_after: And after it.
        throttled: What held the CPU back meanwhile, for example "under-voltage"; "" where nothing
            was seen.
        cache_misses: Last-level cache misses per inference, in user space.
        energy_mj: Millijoules per inference, idle power included.
        power_sensor: The sensor that gave them.
        note: What must be said of these numbers, or "".
    """

    model: str
    target: str
    source: str
    threads: int
    runs: int
    min_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    cpu_min_ms: float | None = None
    init_ms: float | None = None
    peak_mb: float | None = None
    bytes: int = 0
    instructions: int | None = None
    delegated_ops: int = 0
    total_ops: int = 0
    partitions: int = 0
    isa: str = ""
    load: float = 0.0
    ratio_p50: float | None = None
    ratio_min: float | None = None
    delegate: str = "XNNPACK"
    cycles: float | None = None
    sram_peak_bytes: int | None = None
    dram_traffic_bytes: int | None = None
    flash_traffic_bytes: int | None = None
    arena_bytes: int | None = None
    score: Score | None = None
    device: str = ""
    cpus: int = 0
    governor: str = ""
    temperature_before: float | None = None
    temperature_after: float | None = None
    throttled: str = ""
    cache_misses: int | None = None
    energy_mj: float | None = None
    power_sensor: str = ""
    note: str = ""


@dataclass(frozen=True)
class OutputMatch:
    """One file's outputs on a target against this machine's, on the same random inputs.

    Attributes:
        model: Name of the file.
        target: Target name.
        values: Number of output elements compared.
        different: How many differ in any bit.
        largest: Largest difference: codes for integers, real values for floats.
        relative: For floats, the largest quotient of a difference and the largest magnitude of the
            same output here (infinite where that is 0, or where one of the two is NaN); None
            where all outputs are integers.
    """

    model: str
    target: str
    values: int
    different: int
    largest: float
    relative: float | None = None


@dataclass
class Record:
    """One row of the report: a stage, or one file that a stage produced.

    Attributes:
        stage: Stage name with its index, for example "03_qat", or "baseline".
        label: What the table shows, for example "pruned + distilled + QAT, int8".
        scheme: Scheme of the file, or "keras" for a model that was not converted.
        path: File that holds the result, relative to the work directory.
        metrics: Named scores, for example {"accuracy": 0.921} (of the file itself).
        bytes: Size of the file.
        params: Number of weights.
        macs: Multiply-accumulates of one inference.
        timing: Timing on each target.
        drift: Difference to the Keras model that it was made from.
        certificate: Op rows of the file.
        size_by_layer: Bytes of weights by layer.
        seconds: Time the stage took.
        notes: What was skipped or refused, and why.
    """

    stage: str
    label: str
    scheme: str = "keras"
    path: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    params: int = 0
    macs: int = 0
    timing: list[Timing] = field(default_factory=list)
    drift: Drift | None = None
    certificate: list[CertificateRow] = field(default_factory=list)
    size_by_layer: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def to_json(value: Any) -> Any:
    """Turns records, arrays and numpy scalars into plain JSON values.

    Infinities and NaN become strings ("inf", "-inf", "nan"), because JSON has none of them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def from_json(cls: type, value: dict[str, Any]) -> Any:
    """Rebuilds a Record, Timing, Score, Drift, LayerDrift or CertificateRow from `to_json`'s form.

    Args:
        cls: One of the classes of this module.
        value: The mapping; unknown keys are ignored, so that newer files stay readable.
    """
    nested = {
        "timing": lambda v: [from_json(Timing, t) for t in v],
        "score": lambda v: None if v is None else from_json(Score, v),
        "drift": lambda v: None if v is None else from_json(Drift, v),
        "certificate": lambda v: [from_json(CertificateRow, r) for r in v],
        "layers": lambda v: tuple(from_json(LayerDrift, r) for r in v),
    }
    out: dict[str, Any] = {}
    for f in dataclasses.fields(cls):
        if f.name not in value:
            continue
        v = value[f.name]
        if f.name in nested:
            v = nested[f.name](v)
        elif v in ("inf", "-inf", "nan") and "float" in str(f.type):
            v = float(v)
        out[f.name] = v
    return cls(**out)


def write_jsonl(path: str | Path, records: Iterable[Any]) -> None:
    """Writes one JSON object a line."""
    lines = [json.dumps(to_json(r), allow_nan=False) for r in records]
    Path(path).write_text("".join(line + "\n" for line in lines))


def read_jsonl(path: str | Path) -> list[Record]:
    """Reads what `write_jsonl` wrote, as Records."""
    lines = Path(path).read_text().splitlines()
    return [from_json(Record, json.loads(line)) for line in lines if line.strip()]
