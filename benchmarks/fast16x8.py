"""Files with 16-bit activations: as TFLiteConverter writes them, and as tfedge does.

    python benchmarks/fast16x8.py [--only ResNet50@96] [--force]

A row is one network: ResNet-8 as kept in baselines/, ResNet50 and MobileNetV2 of
tf_keras.applications with random weights, whose batch norms get random scales and offsets and the
means and variances of 64 smooth random images. All forms of a network are timed in turn in one
process; each column holds the least CPU time of a thread in ms and, in brackets, how many times
faster than the stock 16x8 file it is. On a CPU no 16x8 file is faster than float32: float32,
float16, dynamic range and int8 stand beside it. SQNR is against the float model on images that
calibration has not seen. "ops off by steps" feeds each rewritten op what the stock op is fed, with
all kinds of kernels. Bytes and steps do not depend on the machine; times do much: the runtime packs
16-bit inputs fast with AVX-512 only.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
from rows import main

ROWS = ("resnet8@28", "ResNet50@96", "MobileNetV2@96")
IMAGES, CALIBRATION, TEST = 64, 32, 32
RUNS = {"resnet8@28": 200, "ResNet50@96": 15, "MobileNetV2@96": 40}
SCHEMES = ("float32", "float16", "w8_dynamic", "w8a8")


def images(count: int, size: int, seed: int) -> np.ndarray:
    """Smooth random images with some noise, [count, size, size, 3], within [-1, 1]."""
    from tfedge._keras import tf

    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, size // 8, size // 8, 3)).astype("float32")
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    noise = 0.2 * rng.normal(size=smooth.shape)
    return np.clip((smooth + noise) / 2, -1, 1).astype("float32")


def network(row: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """A float model, calibration images and test images."""
    name, size = row.split("@")
    if name == "resnet8":
        import image_data
        from baselines import load_baseline

        model = load_baseline(name)
        task = image_data.task("fashion_mnist", model)
        seen, unseen = task.calibration(CALIBRATION), task.test_arrays(TEST)[0]
        return model, next(iter(seen.values())), next(iter(unseen.values()))
    from tfedge._keras import keras

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(input_shape=(int(size), int(size), 3), weights=None)
    _measure_norms(model, images(IMAGES, int(size), 0))
    return model, images(CALIBRATION, int(size), 1), images(TEST, int(size), 2)


def _measure_norms(model: Any, x: np.ndarray) -> None:
    """Random scales and offsets; means and variances as the images make them."""
    from tfedge._keras import keras

    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            layer.gamma.assign(rng.uniform(0.6, 1.4, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    model(x, training=True)


def converters_own(model: Any, x: np.ndarray) -> bytes:
    """What TFLiteConverter makes of the model, with int16 ends."""
    from tfedge._keras import tf
    from tfedge.capture import captured

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([s[None]] for s in x)
    sixteen = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [sixteen]
    converter.inference_input_type = converter.inference_output_type = tf.int16
    with captured():
        return bytes(converter.convert())


def measure(row: str) -> dict[str, Any]:
    """Times, SQNR, bytes and proofs of all forms."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tfedge
    from tfedge.tflite import TFLiteModel

    model, x, test = network(row)
    forms = {"stock": TFLiteModel.from_bytes(converters_own(model, x), scheme="stock")}
    forms["ours"] = tfedge.convert(model, "w8a16", calibration=x)
    depthwise = any(r.op == "DEPTHWISE_CONV_2D" for r in forms["stock"].certificate)
    if depthwise:
        forms["ours, depthwise stock"] = tfedge.convert(
            model, "w8a16", calibration=x, int16={"depthwise": "stock"}
        )
        forms["ours, depthwise float (hybrid)"] = tfedge.convert(
            model, "w8a16", calibration=x, int16={"depthwise": "float"}
        )
    wide = list(forms)
    for scheme in SCHEMES:
        samples = x if scheme == "w8a8" else None
        forms[scheme] = tfedge.convert(model, scheme, calibration=samples)
    columns: dict[str, Any] = {}
    timings = tfedge.benchmark(list(forms.values()), runs=RUNS[row])
    least = [t.cpu_min_ms or t.min_ms or 0.0 for t in timings]
    for name, ms in zip(forms, least, strict=True):
        columns[f"{name}: ms"] = f"{ms:.3g} ({least[0] / ms:.2f}x)"
    want = model.predict(test, verbose=0)
    for name in [*wide, "w8a8"]:
        columns[f"{name}: SQNR dB"] = round(sqnr(want, forms[name].predict(test)), 2)
    for name in [*wide, "float32"]:
        columns[f"{name}: bytes"] = len(forms[name].data)
    columns["sums"] = proofs(forms["ours"].certificate)
    plain = unfitted(model, x)
    for name in wide[1:]:
        columns[f"{name}: ops off by steps"] = op_steps(plain, forms[name].data, test)
    columns["load, cpu"] = f"{timings[0].load:.1f}, {timings[0].isa}"
    return columns


def sqnr(want: np.ndarray, got: dict[str, np.ndarray]) -> float:
    """Signal to quantization noise in dB."""
    found = next(iter(got.values()))
    return float(10 * np.log10(np.sum(want**2) / np.sum((want - found) ** 2)))


def proofs(certificate: list[Any]) -> str:
    """How many ops by what their sums rest on."""
    from tfedge.tflite import int16_bias as bias

    short = {
        bias.WORST_CASE: "any input", bias.KNOWN_RANGE: "known range", bias.CODES: "codes seen",
        bias.SUMS: "sums seen", bias.WIDE: "int64", bias.ONLY_WIDE: "int64, no other kernel",
    }  # fmt: skip
    count = Counter(
        word for r in certificate for text, word in short.items() if r.reason.endswith(text)
    )
    return ", ".join(f"{count[word]} {word}" for word in short.values() if count[word])


def unfitted(model: Any, x: np.ndarray) -> bytes:
    """The converter's ops under the tensor names of tfedge's files."""
    from tfedge import lower
    from tfedge.tflite import int16_bias

    fit = int16_bias.fit_int16_biases
    try:
        int16_bias.fit_int16_biases = lambda model, seen=None: {}
        return lower.lower(model, "w8a16", calibration=x)
    finally:
        int16_bias.fit_int16_biases = fit


def op_steps(stock: bytes, ours: bytes, x: np.ndarray) -> str:
    """Largest difference of each op's output, given the stock op's input: "53 by 1, 1 by 0"."""
    from tfedge.tflite import flatbuffer as fb
    from tfedge.tflite.int16_bias import summing_ops
    from tfedge.tflite.interpreter import KERNELS, Interpreter
    from tfedge.tflite.tensors import quantize

    model = fb.read(stock)
    graph = model.subgraphs[0]
    runner = Interpreter(stock, keep_tensors=True)
    spec = runner.inputs[0]
    runner.run({spec.name: quantize(x[:1], spec)})
    count: Counter[int] = Counter()
    for found in summing_ops(model):
        ends = [found.source, int(found.op.outputs[0])]
        names = [fb.tensor_name(graph.tensors[i]) for i in ends]
        part = between(ours, *names)
        if part is None:
            continue
        want, worst = runner.tensor(ends[1]).astype(int), 0
        for kernels in KERNELS:
            alone = Interpreter(part, kernels=kernels)
            got = next(iter(alone.run(runner.tensor(ends[0])).values()))
            worst = max(worst, int(np.abs(got - want).max()))
        count[worst] += 1
    return ", ".join(f"{count[n]} by {n}" for n in sorted(count))


def between(data: bytes, source: str, target: str) -> bytes | None:
    """The ops of a file from one tensor to another; None where they are not there."""
    from tfedge.tflite import flatbuffer as fb
    from tfedge.tflite.rewrite import compact

    model = fb.read(data)
    graph = model.subgraphs[0]
    names = [fb.tensor_name(t) for t in graph.tensors]
    if source not in names or target not in names:
        return None
    begin, end = names.index(source), names.index(target)
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    needed, stack = set(), [end]
    while stack:
        index = stack.pop()
        op = makers.get(index)
        if index == begin or op is None or id(op) in needed:
            continue
        needed.add(id(op))
        stack += [int(i) for i in op.inputs if i >= 0]
    graph.operators = [op for op in graph.operators if id(op) in needed]
    graph.inputs, graph.outputs = [begin], [end]
    model.signatureDefs = model.metadata = None
    compact(model)
    return fb.write(model)


if __name__ == "__main__":
    main("fast16x8", ROWS, measure, __doc__ or "")
