"""What schemes cost on Arm cores, in instructions of real aarch64 kernels under an emulator.

    tfedge target setup arm64
    python benchmarks/arm.py [--only MobileNetV2@96/w8a8] [--force] [--timeout 3600]

A row is one file: a network of benchmarks/fast16x8.py (ResNet-8 as kept in baselines/; MobileNetV2
and ResNet50 with random weights) in one scheme; 16x8 as tfedge writes it for x86_64 and for arm64.
"host: ms" is the least time, measured in turn with the float32 file, and in brackets the quotient
of the two minima (below 1 is faster). On Arm cores nothing is timed: "M instr." are millions of
instructions an inference, in brackets over float32's; "M multiply" those of its vectors that
multiply (dot products, fused multiply-adds, widening products); "MB moved" by loads and stores;
"in XNNPACK" the share of its instructions in XNNPACK's kernels. "as host" compares the outputs of
8 images: how many of the values differ, or the largest difference where they are floats.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from fast16x8 import network
from rows import main

NETWORKS = ("resnet8@28", "MobileNetV2@96", "ResNet50@96")
FORMS: dict[str, tuple[str, dict[str, str] | None]] = {
    "float32": ("float32", None),
    "float16": ("float16", None),
    "w8_dynamic": ("w8_dynamic", None),
    "w8a8": ("w8a8", None),
    "w8a16 for x86_64": ("w8a16", {"cpu": "x86_64"}),
    "w8a16 for arm64": ("w8a16", {"cpu": "arm64"}),
}
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
RUNS = {"resnet8@28": 200, "MobileNetV2@96": 40, "ResNet50@96": 15}
IMAGES = 8


def measure(row: str) -> dict[str, Any]:
    """One file on all targets, beside the float32 file of the same network."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tfedge

    name, _, form = row.partition("/")
    scheme, options = FORMS[form]
    model, seen, unseen = network(name)
    integer = scheme in ("w8a8", "w8a16")
    file = tfedge.convert(model, scheme, calibration=seen if integer else None, int16=options)
    base = file if scheme == "float32" else tfedge.convert(model, "float32")
    columns: dict[str, Any] = {"KB": round(len(file.data) / 1000)}
    first, timing = tfedge.benchmark([base, file], runs=RUNS[name])
    columns["host: ms"] = f"{timing.min_ms:.3g} ({timing.ratio_min:.2f}x)"
    columns["host: load, cpu"] = f"{first.load:.1f}, {first.isa}"
    for core in CORES:
        found = on_core(core, base.data, file.data, unseen[:IMAGES])
        columns |= {f"{core.removeprefix('cortex-')}: {k}": v for k, v in found.items()}
    return columns


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
        "as host": as_host(target, data, x),
    }


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
    main("arm", [f"{n}/{f}" for n in NETWORKS for f in FORMS], measure, __doc__ or "")
