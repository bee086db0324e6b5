"""Estimated times on Arm cores beside published measurements, for MobileNets at 224 pixels.

    tfedge target setup arm64
    nice -n 10 python benchmarks/simulated.py [--only MobileNetV2/w8a8] [--force] [--timeout 3600]

A row is one network of tf_keras.applications with random weights in one scheme. "est." is what the
sim: targets say: ms of one core of a Raspberry Pi 3B+, 4 and 5, nothing fitted. Beside it:

* "XNNPACK": https://github.com/google/XNNPACK, README.md, "Raspberry Pi": XNNPACK itself, of 8 Feb
  2022, on ALL FOUR cores ("multi-threaded"): RPi 4 (BCM2711, ARM64), and RPi 3+ (BCM2837B0), which
  ran 32-bit code. Four cores at best divide a time by four, and memory is shared: the quotient to
  ours says nothing of the model's error; the order does.
* "ncnn": https://github.com/Tencent/ncnn, benchmark/README.md, one thread (the least): Raspberry Pi
  3B+ at 1.4 GHz, Raspberry Pi 4B at 1.8 GHz and Raspberry Pi 5 at 2.4 GHz. Another library, with
  its own kernels (in half precision on the Pi 5's floats, which is why these are left out). The Pi
  4 is estimated at 1.8 GHz for it. MobileNetV3 is the large one.
* "ExecuTorch": Arm's course "ExecuTorch on Arm" (learn.arm.com), XNNPACK on a Raspberry Pi 5, the
  number of threads not said.

Quotients are measured over estimated: above 1 the hardware is slower than its published
throughputs allow. The last table has Spearman's rank correlations over the rows (1: same order).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rows import RESULTS, main

NETWORKS = {
    "MobileNet": ("MobileNet", {}),
    "MobileNetV2": ("MobileNetV2", {}),
    "MobileNetV3Large": ("MobileNetV3Large", {"include_preprocessing": False}),
    "MobileNetV3Small": ("MobileNetV3Small", {"include_preprocessing": False}),
}
SCHEMES = ("float32", "w8a8")
SIZE, SAMPLES = 224, 8
CORES = {"pi3": ("cortex-a53", 1.4), "pi4": ("cortex-a72", 1.5), "pi5": ("cortex-a76", 2.4)}
NCNN_CLOCKS = {"pi3": 1.4, "pi4": 1.8, "pi5": 2.4}

# Milliseconds by source, then row.
PUBLISHED: dict[str, dict[str, float]] = {
    "pi4: XNNPACK 4 cores": {
        "MobileNet/float32": 77, "MobileNetV2/float32": 46, "MobileNetV3Large/float32": 40,
        "MobileNetV3Small/float32": 15, "MobileNet/w8a8": 24, "MobileNetV2/w8a8": 17,
    },
    "pi3: XNNPACK 4 cores, 32 bits": {
        "MobileNet/float32": 114, "MobileNetV2/float32": 79, "MobileNetV3Large/float32": 67,
        "MobileNetV3Small/float32": 22, "MobileNet/w8a8": 46, "MobileNetV2/w8a8": 30,
    },
    "pi4: ncnn 1 core": {
        "MobileNet/float32": 123.76, "MobileNetV2/float32": 92.98,
        "MobileNetV3Large/float32": 72.48, "MobileNet/w8a8": 84.66,
    },
    "pi3: ncnn 1 core": {
        "MobileNet/float32": 204.62, "MobileNetV2/float32": 158.69,
        "MobileNetV3Large/float32": 127.13, "MobileNet/w8a8": 181.34,
    },
    "pi5: ncnn 1 core": {"MobileNet/w8a8": 14.38},
    "pi5: ExecuTorch": {"MobileNetV2/float32": 10.89, "MobileNetV2/w8a8": 4.01},
}  # fmt: skip


def measure(row: str) -> dict[str, Any]:
    """Estimates of one file on all boards."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np

    import tfedge
    from tfedge._keras import keras
    from tfedge.targets.sim.target import SimTarget, estimate

    network, _, scheme = row.partition("/")
    name, options = NETWORKS[network]
    keras.utils.set_random_seed(0)
    shape = (SIZE, SIZE, 3)
    model = getattr(keras.applications, name)(input_shape=shape, weights=None, **options)
    x = np.random.default_rng(0).uniform(-1, 1, (SAMPLES, *shape)).astype("float32")
    file = tfedge.convert(model, scheme, calibration=x if scheme == "w8a8" else None)
    columns: dict[str, Any] = {"KB": round(len(file.data) / 1000)}
    for board, (cpu, clock) in CORES.items():
        costs = SimTarget(cpu).costs(file.data)
        columns[f"{board}: M instr."] = round(costs.total.instructions / 1e6, 1)
        columns[f"{board}: est. ms"] = round(costs.ms or 0.0, 2)
        at = SimTarget(cpu, clock_ghz=NCNN_CLOCKS[board])
        if NCNN_CLOCKS[board] != clock:
            other = estimate(costs, file.data, at.core, at.name).ms or 0.0
            columns[f"{board}: est. ms at {NCNN_CLOCKS[board]} GHz"] = round(other, 2)
        slow = [op for op in costs.ops if op.bound == "memory"]
        columns[f"{board}: by memory"] = f"{sum(op.ms or 0 for op in slow) / (costs.ms or 1):.0%}"
    return columns


def compare() -> None:
    """Prints the estimates beside what was published, and the rank correlations."""
    path = RESULTS / "simulated.json"
    table = json.loads(path.read_text()) if path.exists() else {}
    for source, published in PUBLISHED.items():
        board = source.partition(":")[0]
        clock = NCNN_CLOCKS[board] if "ncnn" in source else CORES[board][1]
        plain, other = f"{board}: est. ms", f"{board}: est. ms at {clock} GHz"
        rows = [r for r in published if plain in table.get(r, {})]
        ours = [table[r].get(other, table[r][plain]) for r in rows]
        theirs = [published[r] for r in rows]
        print(
            f"\n{source}\n\n| row | published ms | est. ms, 1 core | quotient |\n|---|---|---|---|"
        )
        for row, a, b in zip(rows, theirs, ours, strict=True):
            print(f"| {row} | {a:g} | {b:g} | {a / b:.2f} |")
        for kind in ("", *SCHEMES):
            pairs = [p for r, *p in zip(rows, ours, theirs, strict=True) if r.endswith(kind)]
            if len(pairs) > 1:
                rank = spearman(*map(list, zip(*pairs, strict=True)))
                print(f"\nrank correlation {rank:.2f} over {len(pairs)} {kind or 'all'} rows")


def spearman(first: list[float], second: list[float]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


if __name__ == "__main__":
    main("simulated", [f"{n}/{s}" for n in NETWORKS for s in SCHEMES], measure, __doc__ or "")
    if "--row" not in sys.argv:  # those are the processes of single rows
        compare()
