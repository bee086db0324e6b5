"""Mixed precision: the front of bytes, or time, against accuracy; and in which order to prune.

    python benchmarks/mixed.py [--cifar10 FOLDER] [--only ROW] [--force]

Rows MODEL/uniform/SCHEME hold the network under one scheme, MODEL/bytes/SHARE and
MODEL/latency_us/SHARE what tfedge.allocate makes of a budget that is that share of the w8a8 file's
bytes, or of the float32 file's time: accuracy of the file on all test images, predicted and
measured quality, bytes and time (one thread, CPU time, this machine), and the solver's seconds.
Noise is measured on 32 training images, none of the test images is looked at. Rows order/... prune
the ResNet-8 of Fashion-MNIST to half of its MACs before or after it is quantized, with the same
number of steps. The front is also drawn, results/mixed.svg.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import image_data
import numpy as np
import rows

MODELS = {
    "resnet8": ("resnet8", "fashion_mnist"),
    "resnet20": ("resnet20_cifar10", "cifar10"),
    "mobilenet_v2_035": ("mobilenet_v2_035_cifar10", "cifar10"),
}
SCHEMES = ("float32", "float16", "w8a16", "w8a8", "w4a8")
SHARES = {"bytes": (0.65, 0.8, 1.0, 1.3), "latency_us": (0.7, 1.0, 1.5, 3.0)}
ORDERS = ("prune_then_quantize", "quantize_then_prune")
CALIBRATION, RATE = 256, 1e-3
UNITS = 200


def every_row() -> list[str]:
    """Names of all rows."""
    found = []
    for model in MODELS:
        found += [f"{model}/uniform/{s}" for s in SCHEMES]
        found += [f"{model}/{cost}/{share}" for cost, shares in SHARES.items() for share in shares]
    return [*found, *(f"order/{o}" for o in ORDERS), f"solver/{UNITS}"]


def measure(row: str) -> dict[str, Any]:
    """The columns of one row."""
    warnings.simplefilter("ignore")
    name, *rest = row.split("/")
    if name == "solver":
        return solver(int(rest[0]))
    if name == "order":
        return order(rest[0])
    model, task, samples = begin(name)
    kind, value = rest
    if kind == "uniform":
        return uniform(model, task, samples, value)
    return allocated(model, task, samples, kind, float(value))


def begin(name: str) -> tuple[Any, Any, Any]:
    """A kept baseline, its task and calibration samples."""
    from baselines import load_baseline

    kept, data = MODELS[name]
    model = load_baseline(kept)
    task = image_data.task(data, model)
    return model, task, task.calibration(CALIBRATION)


def uniform(model: Any, task: Any, samples: Any, scheme: str) -> dict[str, Any]:
    """The whole network under one scheme."""
    import tfedge

    needs = scheme.startswith("w")
    file = tfedge.convert(model, scheme, calibration=samples if needs else None)
    return {"accuracy": accuracy(file, task), "bytes": len(file.data), "us": timed(file)}


def allocated(model: Any, task: Any, samples: Any, cost: str, share: float) -> dict[str, Any]:
    """What a budget gives."""
    import tfedge

    whole = tfedge.convert(
        model,
        "w8a8" if cost == "bytes" else "float32",
        calibration=samples if cost == "bytes" else None,
    )
    limit = share * (len(whole.data) if cost == "bytes" else timed(whole))
    began = time.monotonic()
    found = tfedge.allocate(model, samples, {cost: limit})
    took = time.monotonic() - began
    counts: dict[str, int] = {}
    for choice in found.choices:
        counts[choice.scheme] = counts.get(choice.scheme, 0) + 1
    return {
        "accuracy": accuracy(found.file, task),
        "bytes": len(found.file.data),
        "us": round(found.measured["latency_us"], 1),
        "budget": round(limit, 1),
        "dB": round(found.measured["sqnr_db"], 1),
        "predicted dB": round(found.predicted["sqnr_db"], 1),
        "predicted bytes": int(found.predicted["bytes"]),
        "predicted us": round(found.predicted["latency_us"], 1),
        "parts": ", ".join(f"{n} {s}" for s, n in sorted(counts.items())),
        "solver s": round(found.seconds, 2),
        "all s": round(took, 1),
    }


def order(name: str) -> dict[str, Any]:
    """Pruning to half of the MACs before or after quantization; two epochs in all."""
    import tfedge
    from tfedge import prune, quant, train

    model, task, samples = begin("resnet8")

    def fit(learner: Any, seed: int) -> None:
        spec = train.TrainSpec(epochs=1, learning_rate=RATE, seed=seed, validate=False)
        train.fit(learner, task, spec)

    if name == "prune_then_quantize":
        pruned = prune.shrink(model, None, target_macs=0.5).model
        fit(pruned, 0)
        final = quant.quantize_aware(pruned, "w8a8", samples)
        fit(final, 1)
    else:
        aware = quant.quantize_aware(model, "w8a8", samples)
        fit(aware, 0)
        final = prune.shrink(aware, None, target_macs=0.5).model
        fit(final, 1)
    file = tfedge.convert(final, "w8a8")
    return {"accuracy": accuracy(file, task), "bytes": len(file.data), "us": timed(file)}


def solver(count: int) -> dict[str, Any]:
    """Seconds for a made-up chain with skips of many units, five schemes each."""
    from tfedge.mixed.solver import Link, Option, solve

    random = np.random.default_rng(0)
    forms = {"w8a8": 8, "w4a8": 8, "w8a16": 16, "float16": 0, "float32": 0}
    units = {
        f"u{i}": {
            s: Option(f, random.random(), {"bytes": random.random(), "us": random.random()})
            for s, f in forms.items()
        }
        for i in range(count)
    }
    seams = {(a, b): 0.1 for a in (0, 8, 16) for b in (0, 8, 16) if a != b}
    links = []
    for i in range(count - 1):
        skip = f"u{min(count - 1, i + 1 + int(random.integers(1, 4)))}"
        readers = tuple(dict.fromkeys((f"u{i + 1}", skip)))
        links.append(Link(f"u{i}", readers, {8: 0.1, 16: 0.001}, {"us": seams}))
    began = time.monotonic()
    found = solve(units, links, {"bytes": 0.35 * count, "us": 0.4 * count})
    return {"solver s": round(time.monotonic() - began, 2), "gap": found.gap}


def accuracy(file: Any, task: Any) -> float:
    """Share of all test images whose class the file finds."""
    from tfedge.tflite.interpreter import Interpreter

    x, y = task.test_arrays(None)
    labels = np.ravel(next(iter(y.values())) if isinstance(y, dict) else y)
    logits = next(iter(Interpreter(file.data, threads=2).predict(x).values()))
    return round(float(np.mean(logits.argmax(1) == labels)), 4)


def timed(file: Any) -> float:
    """Microseconds of an inference: the least CPU time of one thread."""
    from tfedge.targets.host import HostTarget

    return round(HostTarget().quick({"file": file.data})["file"], 1)


def plot(table: dict[str, Any]) -> str:
    """An SVG: accuracy over bytes, and over time, one row of panels a model."""
    width, height, gap = 330, 210, 70
    parts: list[str] = []
    models = [m for m in MODELS if any(row.startswith(f"{m}/") for row in table)]
    for line, model in enumerate(models):
        for column, (cost, key) in enumerate((("bytes", "bytes"), ("latency_us", "us"))):
            points = {
                row: (c[key], 100 * c["accuracy"])
                for row, c in table.items()
                if row.startswith((f"{model}/uniform/", f"{model}/{cost}/")) and "accuracy" in c
            }
            if points:
                left, top = 60 + column * (width + gap), 40 + line * (height + gap)
                parts += _panel(points, f"{model}: accuracy in % over {cost}", left, top)
    size = f'width="{2 * (width + gap) + 60}" height="{len(models) * (height + gap) + 40}"'
    style = 'font-family="sans-serif" font-size="12"'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', *parts, "</svg>", ""]
    )


def _panel(points: dict[str, tuple[float, float]], title: str, left: int, top: int) -> list[str]:
    width, height = 330, 210
    xs = np.log([p[0] for p in points.values()])
    ys = [p[1] for p in points.values()]
    low, high = min(ys), max(ys)
    across = width / max(float(xs.max() - xs.min()), 1e-6)
    up = height / max(high - low, 1e-6)
    parts = [f'<text x="{left}" y="{top - 12}" font-weight="bold">{title}</text>']
    parts.append(
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#bbb"/>'
    )
    for value, y in ((high, top + 10), (low, top + height)):
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end">{value:.1f}</text>')
    for value, x in ((xs.min(), left), (xs.max(), left + width)):
        shown = f"{np.exp(value):,.0f}"
        parts.append(f'<text x="{x}" y="{top + height + 16}" text-anchor="middle">{shown}</text>')
    for (row, (_, y)), x in zip(points.items(), xs, strict=True):
        kind, label = row.split("/")[1:]
        colour = "#0072B2" if kind == "uniform" else "#D55E00"
        place = f'cx="{left + (x - xs.min()) * across:.1f}" cy="{top + (high - y) * up:.1f}"'
        parts.append(f'<circle {place} r="4" fill="{colour}"><title>{row}</title></circle>')
        if kind == "uniform":
            at = f'x="{left + (x - xs.min()) * across + 6:.1f}" y="{top + (high - y) * up + 4:.1f}"'
            parts.append(f"<text {at}>{label}</text>")
    return parts


def main() -> None:
    """Measures what is missing and draws the front."""
    image_data.take_flag()
    rows.main("mixed", every_row(), measure, __doc__ or "")
    path: Path = rows.RESULTS / "mixed.json"
    if path.exists() and not any(a.startswith("--row") for a in sys.argv):
        path.with_suffix(".svg").write_text(plot(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
