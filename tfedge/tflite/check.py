"""Trying a file in a process of its own, because a bad one can abort the process that runs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.shell import Answer, Finished, run_module, serve
from tfedge.tflite import flatbuffer
from tfedge.tflite.interpreter import Interpreter, OpInfo
from tfedge.tflite.tensors import TensorSpec

_MODULE = "tfedge.tflite.check_worker"
_NODE = re.compile(r"Node number (\d+) \(([^)]+)\) (failed to \w+|\w+ failed)")
_FIX = "Convert with another scheme, or replace the layer behind the op"


def check_runs(data: bytes, timeout: float = 300.0) -> list[OpInfo]:
    """Loads, prepares and runs a file once on random inputs, in a process of its own.

    Args:
        data: The whole file.
        timeout: Seconds that it may take.

    Returns:
        The ops with their XNNPACK partitions, as `Interpreter.ops` gives them.

    Raises:
        InputError: `data` is no TFLite file at all.
        ConversionError: The file cannot be loaded, prepared or run, ends the process by a signal,
            or does not end. The message names the op: as the runtime does, or, for a process that
            died, found by running ever closer beginnings of the file (a fraction of a second each).
    """
    if bytes(data[4:8]) != flatbuffer.IDENTIFIER:
        raise InputError("this is not a TFLite file", f"{len(data)} bytes", "Give a .tflite file")
    file = np.frombuffer(data, np.uint8)
    try:
        ended = run_module(_MODULE, {}, {"file": file}, timeout=timeout)
    except TargetError as error:
        raise ConversionError("the file does not finish one run", error.found, _FIX) from error
    answer = ended.answer
    if answer is None:
        named = _NODE.search(ended.finished.error_text)
        culprit = "" if named else first_to_die(data, lambda cut: _dies(cut, timeout))
        raise ConversionError(*_explain(ended.finished, culprit))
    if "error" in answer.values:
        raise ConversionError(*_op_of(str(answer.values["error"])))
    return [_op_info(entry) for entry in answer.values["ops"]]


def _op_info(entry: dict[str, Any]) -> OpInfo:
    lists = {key: tuple(entry[key]) for key in ("inputs", "outputs")}
    return OpInfo(**{**entry, **lists})


def first_to_die(data: bytes, dies: Callable[[bytes], bool]) -> str:
    """Names the op that ends the process, by trying ever closer beginnings of the file.

    Args:
        data: The whole file.
        dies: Whether a file ends the process that runs it.

    Returns:
        For example "op 14 (SQUARED_DIFFERENCE, tensor 'm/ln/SquaredDifference')"; "" where no
        beginning of the file dies, so that no single op can be named.
    """
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    ops = list(graph.operators or [])
    good, bad = 0, len(ops)
    while bad - good > 1:
        middle = (good + bad) // 2
        if dies(_beginning(data, middle)):
            bad = middle
        else:
            good = middle
    if not ops or not dies(_beginning(data, bad)):
        return ""
    op = ops[bad - 1]
    name = flatbuffer.tensor_name(graph.tensors[int(op.outputs[0])]) if len(op.outputs) else ""
    return f"op {bad - 1} ({flatbuffer.op_name(model, op)}, tensor '{name}')"


def _beginning(data: bytes, count: int) -> bytes:
    """The file cut after `count` ops of the main subgraph, with the last one's outputs."""
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:count]
    graph.outputs = [int(t) for t in graph.operators[-1].outputs if t >= 0]
    model.signatureDefs = None
    return flatbuffer.write(model)


def _dies(data: bytes, timeout: float) -> bool:
    file = np.frombuffer(data, np.uint8)
    try:
        return run_module(_MODULE, {}, {"file": file}, timeout=timeout).finished.code < 0
    except TargetError:  # Without an end is not what is looked for.
        return False


def _explain(finished: Finished, culprit: str) -> tuple[str, str, str]:
    """What to tell of a process that died: phase, op, signal, last words."""
    phases = finished.out.decode("utf-8", "replace").split()
    phase = {"prepare": "prepares it", "run": "runs it"}.get((phases or [""])[-1], "loads it")
    what = f"the file ends the process that {phase}"
    text = finished.error_text
    if _NODE.search(text):
        return what, f"{_op_of(text)[1]} ({finished.ending})", _FIX
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("INFO:", "WARNING:"))]
    found = [f"{finished.ending} at {culprit}" if culprit else finished.ending, *own[-1:]]
    return what, "; ".join(found), _FIX


def _op_of(text: str) -> tuple[str, str, str]:
    """Finds the op in a runtime's message: "Node number 3 (CONV_2D) failed to prepare"."""
    node = _NODE.search(text)
    if node is None:
        return "the file does not run", text, _FIX
    what = f"op {node[1]} ({node[2]}) {node[3]}"
    detail = text.replace(node[0], "").strip(" .;")
    return "the file does not run", what + (f": {detail}" if detail else ""), _FIX


def random_inputs(specs: tuple[TensorSpec, ...], seed: int = 0) -> dict[str, np.ndarray]:
    """One run's inputs as the file stores them, for trying and timing.

    Floats are uniform in [0, 1); codes are uniform over their dtype; plain integers and booleans
    are 0, because they may be indices that must stay inside a table.

    Args:
        specs: The file's inputs.
        seed: Seed of the generator; the same specs and seed give the same arrays.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for spec in specs:
        if spec.quantized:
            limits = np.iinfo(spec.dtype)
            values = rng.integers(limits.min, limits.max, spec.shape, np.int64, endpoint=True)
            out[spec.name] = values.astype(spec.dtype)
        elif spec.numpy_dtype.kind == "f":
            out[spec.name] = rng.random(spec.shape).astype(spec.dtype)
        else:
            out[spec.name] = np.zeros(spec.shape, spec.dtype)
    return out


def _answer(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answer:
    """The other process's part."""
    del values
    data = arrays["file"].tobytes()
    try:
        # Told before each phase, so that the parent knows where a dead process stood.
        print("prepare", flush=True)
        interpreter = Interpreter(data)
        ops = interpreter.ops()
        print("run", flush=True)
        interpreter.run(random_inputs(interpreter.inputs))
    except ConversionError as error:
        return Answer({"error": error.found})
    return Answer({"ops": [asdict(op) for op in ops]})


def main() -> None:
    """Runs the check that `check_runs` sent; see `tfedge.shell.serve`."""
    serve(_answer)
