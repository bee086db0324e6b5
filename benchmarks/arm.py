"""What schemes cost on Arm cores, on an NPU and on a microcontroller's runtime.

    tfedge target setup arm64
    python benchmarks/arm.py [--only MobileNetV2@96/w8a8] [--force] [--timeout 3600]

A row is one file: a network of benchmarks/fast16x8.py (ResNet-8 as kept in baselines/, which is the
demo's; MobileNetV2 and ResNet50 with random weights) in one scheme; 16x8 as the stock converter
writes it, and as tfedge does for x86_64 and for arm64; "pruned" after half of the channels are cut,
kept counts a multiple of 8, as in the demo's recipe. "host: ms" is the least time, measured in turn
with the float32 file, and in brackets the quotient of the two minima (below 1 is faster). On Arm
cores nothing is timed: "M instr." are millions of instructions an inference, in brackets over those
of float32, not pruned; "M multiply" those of its vectors that multiply (dot products, fused
multiply-adds, widening products); "MB moved" by loads and stores; "in XNNPACK" the share of its
instructions in XNNPACK's kernels; "counted again" two more counts, each in a process of its own,
less the first. "as host" compares the outputs of 8 images: how many of the values differ, or the
largest difference where they are floats. "u55" is Vela's estimate for an Ethos-U55 with 128
multiply-accumulates a cycle (flash, shared SRAM); "tflm" the arena of the microcontroller runtime.

The stock 16x8 file of ResNet50 is no row: some 15 billion instructions take the emulator hours.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from fast16x8 import converters_own, network
from rows import main

NETWORKS = ("resnet8@28", "MobileNetV2@96", "ResNet50@96")
FORMS: dict[str, tuple[str, dict[str, str] | None]] = {
    "float32": ("float32", None),
    "float16": ("float16", None),
    "w8_dynamic": ("w8_dynamic", None),
    "w8a8": ("w8a8", None),
    "w8a16 stock": ("stock", None),
    "w8a16 for x86_64": ("w8a16", {"cpu": "x86_64"}),
    "w8a16 for arm64": ("w8a16", {"cpu": "arm64"}),
    "pruned float32": ("float32", None),
    "pruned w8a8": ("w8a8", None),
    "pruned w8a16 for arm64": ("w8a16", {"cpu": "arm64"}),
}
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
RUNS = {"resnet8@28": 200, "MobileNetV2@96": 40, "ResNet50@96": 15}
IMAGES, AGAIN = 8, 2
NPU = "ethosu:u55-128"


def every_row() -> list[str]:
    """Names of all rows."""
    rows = [f"{n}/{f}" for n in NETWORKS for f in FORMS]
    return [row for row in rows if row != "ResNet50@96/w8a16 stock"]


def measure(row: str) -> dict[str, Any]:
    """One file on all targets, beside the float32 file of the same network."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tfedge

    name, _, form = row.partition("/")
    model, seen, unseen = network(name)
    base = tfedge.convert(model, "float32")
    file = base if form == "float32" else _file(model, form, seen)
    columns: dict[str, Any] = {"KB": round(len(file.data) / 1000)}
    first, timing = tfedge.benchmark([base, file], runs=RUNS[name])
    columns["host: ms"] = f"{timing.min_ms:.3g} ({timing.ratio_min:.2f}x)"
    columns["host: delegated"] = f"{timing.delegated_ops}/{timing.total_ops}"
    columns["host: load, cpu"] = f"{first.load:.1f}, {first.isa}"
    for core in CORES:
        found = on_core(core, base.data, file.data, unseen[:IMAGES])
        columns |= {f"{core.removeprefix('cortex-')}: {k}": v for k, v in found.items()}
    (npu,) = tfedge.benchmark(file, target=NPU, runs=1)
    columns["u55: ms"] = "" if npu.min_ms is None else f"{npu.min_ms:.3g}"
    columns["u55: ops on it"] = f"{npu.delegated_ops}/{npu.total_ops}"
    return columns | {f"tflm: {k}": v for k, v in on_tflm(file.data, unseen[:IMAGES]).items()}


def _file(model: Any, form: str, seen: np.ndarray) -> Any:
    import tfedge
    from tfedge.tflite import TFLiteModel

    scheme, options = FORMS[form]
    if form.startswith("pruned"):
        model = tfedge.prune.shrink(model, 0.5).model
    if scheme == "stock":
        return TFLiteModel.from_bytes(converters_own(model, seen), scheme=form)
    integer = scheme in ("w8a8", "w8a16")
    return tfedge.convert(model, scheme, calibration=seen if integer else None, int16=options)


def on_tflm(data: bytes, x: np.ndarray) -> dict[str, Any]:
    """The arena, and whether the microcontroller runtime computes what the host does."""
    from tfedge.targets.tflm.target import TflmTarget

    target = TflmTarget()
    (timing,) = target.time({"file": data}, 1, 1)
    if timing.arena_bytes is None:
        return {"KB": "refused"}
    return {"KB": round(timing.arena_bytes / 1000), "as host": as_host(target, data, x)}


def on_core(core: str, base: bytes, data: bytes, x: np.ndarray) -> dict[str, Any]:
    """Costs of a file on an emulated core, over those of another, and whether it computes alike."""
    from tfedge.targets.arm64.target import Arm64Target

    target = Arm64Target(core)
    costs = target.costs(data)
    plain = costs if data == base else target.costs(base)
    total = costs.total
    ratio = total.instructions / plain.total.instructions
    inside = sum(op.mix.instructions for op in costs.ops if op.kernel)
    return {
        "M instr.": f"{total.instructions / 1e6:.1f} ({ratio:.2f}x)",
        "M multiply": round((total.dot + total.fmla + total.smlal) / 1e6, 2),
        "MB moved": round(total.bytes / 1e6, 1),
        "in XNNPACK": f"{inside / total.instructions:.0%}",
        "counted again": again(target, data, total.instructions),
        "as host": as_host(target, data, x),
    }


def again(target: Any, data: bytes, first: int) -> str:
    """How far further counts are from the first; "" where one takes the emulator minutes."""
    if first > 500e6:
        return ""
    counts = [target.time({"file": data}, 1, 1)[0].instructions for _ in range(AGAIN)]
    return ", ".join(f"{count - first:+d}" for count in counts)


def as_host(target: Any, data: bytes, x: np.ndarray) -> str:
    """Outputs there against the host's, on the same inputs."""
    from tfedge.targets import get_target
    from tfedge.tflite import Interpreter
    from tfedge.tflite.tensors import quantize

    inputs = {s.name: quantize(x, s) for s in Interpreter(data).inputs}
    pairs = [
        (theirs, target.run(data, inputs)[name])
        for name, theirs in get_target("host").run(data, inputs).items()
    ]
    if any(host.dtype.kind == "f" for host, _ in pairs):
        return f"{max(float(np.abs(a - b).max()) for a, b in pairs):.1g} off"
    different = sum(int((a != b).sum()) for a, b in pairs)
    return f"{different} of {sum(a.size for a, _ in pairs)} differ"


if __name__ == "__main__":
    main("arm", every_row(), measure, __doc__ or "")
