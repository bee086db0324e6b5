"""Integer files without training: stock TFLiteConverter, AI Edge Quantizer, and tfedge's steps.

    python benchmarks/ptq.py --cifar10 FOLDER [--only MODEL/METHOD] [--force]

From the kept CIFAR-10 baselines (benchmarks/baselines.py), all calibrated on the same 256 training
images: `float` (float32 file), `stock` (TFLiteConverter's int8 of the Keras model), `aeq` (AI Edge
Quantizer's static_wi8_ai8 of the float32 file; needs `pip install ai-edge-quantizer==0.10.0`),
`min_max` (tfedge.convert), `default` (ptq="default"), `gptq` and `adaround` (the same with
rounding), `synthetic` (default steps on made-up data); and `w4a8/...` for 4-bit weights. Columns:
accuracy of the file on all test images, seconds, peak memory above what the imports took, time of
an inference (one thread, CPU time). The summary compares each with the best peer by McNemar's exact
test.
"""

from __future__ import annotations

import base64
import json
import resource
import sys
import time
import warnings
import zlib
from math import comb
from pathlib import Path
from typing import Any

import image_data
import numpy as np
import rows

MODELS = {
    "resnet20": "resnet20_cifar10",
    "mobilenet_v2_035": "mobilenet_v2_035_cifar10",
    "efficientnet": "efficientnet_cifar10",
}
STEPS = {
    "min_max": "",
    "default": "default",
    "gptq": "equalise,absorb,ranges,gptq,bias",
    "adaround": "equalise,absorb,ranges,adaround,bias",
}
METHODS = (
    "float",
    "stock",
    "aeq",
    *STEPS,
    "synthetic",
    "w4a8/min_max",
    "w4a8/default",
    "w4a8/gptq",
)
PEERS = ("stock", "aeq")
CALIBRATION = 256


def measure(row: str) -> dict[str, Any]:
    """The columns of one row."""
    warnings.simplefilter("ignore")
    from baselines import load_baseline

    import tfedge
    from tfedge import quant  # noqa: F401  (imports are no part of the cost)
    from tfedge.targets.host import HostTarget
    from tfedge.tflite.interpreter import Interpreter

    name, _, method = row.partition("/")
    model = load_baseline(MODELS[name])
    task = image_data.task("cifar10", model)
    samples = task.calibration(CALIBRATION)
    float_file = tfedge.convert(model, "float32").data
    before, began = _peak(), time.monotonic()
    data, notes = MAKERS[method.split("/")[0]](model, float_file, samples, method)
    took, peak = time.monotonic() - began, _peak() - before
    x, y = task.test_arrays(None)
    labels = np.ravel(next(iter(y.values())) if isinstance(y, dict) else y)
    got = next(iter(Interpreter(data, threads=2).predict(x).values()))
    right = got.argmax(1) == labels
    return {
        "accuracy": round(float(right.mean()), 4),
        "bytes": len(data),
        "seconds": round(took, 1),
        "peak MB": round(peak, 0),
        "us": round(HostTarget().quick({"file": data})["file"], 1),
        "steps": notes,
        "right": _packed(right),
    }


def _peak() -> float:
    """Most memory that this process has had so far, 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _packed(flags: np.ndarray) -> str:
    return base64.b85encode(zlib.compress(np.packbits(flags).tobytes(), 9)).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8))


def _images(samples: Any) -> np.ndarray:
    return next(iter(samples.values())) if isinstance(samples, dict) else np.asarray(samples)


def _float(model: Any, float_file: bytes, samples: Any, method: str) -> tuple[bytes, str]:
    return float_file, ""


def _stock(model: Any, float_file: bytes, samples: Any, method: str) -> tuple[bytes, str]:
    from tfedge._keras import tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in _images(samples))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert()), ""


def _aeq(model: Any, float_file: bytes, samples: Any, method: str) -> tuple[bytes, str]:
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(float_file)
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    name = model.input_names[0]
    data = {"serving_default": [{name: x[None]} for x in _images(samples)]}
    found = made.quantize(made.calibrate(data), enable_progress_report=False)
    return bytes(found.quantized_model or b""), ""


def _ours(model: Any, float_file: bytes, samples: Any, method: str) -> tuple[bytes, str]:
    import tfedge

    scheme, _, steps = method.rpartition("/")
    data = "synthetic:64" if method == "synthetic" else samples
    steps = "default" if method == "synthetic" else STEPS[steps]
    pixels = {"preprocessing": {"scale": 1 / 255, "offset": 0.0}}
    file = tfedge.convert(model, scheme or "w8a8", calibration=data, ptq=steps, metadata=pixels)
    gained = [f"{s['step']} {s['gained_db']:+.1f} dB" for s in file.meta.get("ptq", ())]
    return file.data, ", ".join(gained)


MAKERS: dict[str, Any] = {
    "float": _float,
    "stock": _stock,
    "aeq": _aeq,
    "w4a8": _ours,
    "synthetic": _ours,
    **dict.fromkeys(STEPS, _ours),
}


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided exact p-value of two files' right answers on the same images."""
    wins = int(np.sum((one == 1) & (other == 0)))
    losses = int(np.sum((one == 0) & (other == 1)))
    total, least = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(comb(total, k) for k in range(least + 1)) / 2**total) if total else 1.0


def summary(table: dict[str, Any]) -> list[str]:
    """A line a row, with points to float and to the best peer."""
    lines = ["| model | method | accuracy | to float | to best peer | p | s | MB | us | steps |"]
    lines.append("|---" * 10 + "|")
    for model in MODELS:
        here = {r.partition("/")[2]: c for r, c in table.items() if r.startswith(f"{model}/")}
        here = {m: c for m, c in here.items() if "accuracy" in c}
        peers = [m for m in PEERS if m in here]
        best = max(peers, key=lambda m: here[m]["accuracy"], default="")
        for method, c in here.items():
            to_float = c["accuracy"] - here["float"]["accuracy"] if "float" in here else 0.0
            peer = p = ""
            if best and method not in ("float", best):
                peer = f"{100 * (c['accuracy'] - here[best]['accuracy']):+.2f}"
                p = f"{mcnemar(_unpacked(c['right']), _unpacked(here[best]['right'])):.2f}"
            cells = [model, method, f"{c['accuracy']:.2%}", f"{100 * to_float:+.2f}", peer, p]
            cells += [c["seconds"], c["peak MB"], c["us"], c["steps"]]
            lines.append("| " + " | ".join(str(v) for v in cells) + " |")
    return lines


def main() -> None:
    """Measures what is missing and prints the summary."""
    image_data.take_flag()
    every = [f"{model}/{method}" for model in MODELS for method in METHODS]
    rows.main("ptq", every, measure, __doc__ or "")
    path: Path = rows.RESULTS / "ptq.json"
    if path.exists() and not any(a.startswith("--row") for a in sys.argv):
        text = "\n".join(summary(json.loads(path.read_text())))
        print("\n" + text)
        path.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
