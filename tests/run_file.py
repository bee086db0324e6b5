"""Running a TFLite file by input and output name, for tests of what conversion makes."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfedge._keras import tf
from tfedge.quantized import output_names
from tfedge.tflite import flatbuffer

RESOLVERS = (
    OpResolverType.AUTO,
    OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    OpResolverType.BUILTIN_REF,
)
"""XNNPACK where it has a kernel, the optimised kernels, the reference kernels."""


def run(data: bytes, inputs: dict, resolver: OpResolverType = OpResolverType.AUTO) -> dict:
    """Real-valued outputs and steps by name: {name: (values, step or None, dtype name)}."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    ins, outs = runner.get_input_details(), runner.get_output_details()
    batch = int(next(iter(ins.values()))["shape"][0])
    count = len(next(iter(inputs.values())))
    parts: dict[str, list] = {name: [] for name in outs}
    for start in range(0, count, batch):
        feed = {}
        for name, spec in ins.items():
            values = inputs[name][start : start + batch]
            scale, zero = spec["quantization"]
            if scale:
                ends = np.iinfo(spec["dtype"])
                values = np.clip(np.round(values / scale) + zero, ends.min, ends.max)
            feed[name] = values.astype(spec["dtype"])
        for name, values in runner(**feed).items():
            parts[name].append(values)
    result = {}
    for name, spec in outs.items():
        values, (scale, zero) = np.concatenate(parts[name]), spec["quantization"]
        real = (values.astype(np.float32) - zero) * scale if scale else values
        result[name] = (real, scale or None, values.dtype.name)
    return result


def steps_apart(
    model, data: bytes, inputs: dict, resolver: OpResolverType = OpResolverType.AUTO
) -> np.ndarray:
    """Differences between a Keras model and its file, in quantization steps, all outputs."""
    flat = [tf.constant(inputs[n]) for n in model.input_names]
    found = model(tf.nest.pack_sequence_as(model._nested_inputs, flat), training=False)
    results = run(data, inputs, resolver)
    apart = []
    for name, want in zip(output_names(model), tf.nest.flatten(found), strict=True):
        real, step, _ = results[name]
        apart.append((np.abs(real - want.numpy()) / (step or 1.0)).ravel())
    return np.concatenate(apart)


def float_ops(data: bytes) -> list[str]:
    """Ops with a float tensor at either side."""
    model = flatbuffer.read(data)
    found = []
    for _, graph, op in flatbuffer.operators(model):
        ends = [int(i) for i in (*op.inputs, *op.outputs) if i >= 0]
        if any(flatbuffer.tensor_dtype(graph.tensors[i]).startswith("float") for i in ends):
            found.append(flatbuffer.op_name(model, op))
    return found


def op_names(data: bytes) -> list[str]:
    model = flatbuffer.read(data)
    return [flatbuffer.op_name(model, op) for _, _, op in flatbuffer.operators(model)]
