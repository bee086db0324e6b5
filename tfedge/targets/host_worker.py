"""The processes that `tfedge.targets.measured` has started: `python -m` this, with a folder.

Needs numpy and the runtime only. The request's "do" is one of `TASKS`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge.errors import InputError, TargetError, TfedgeError
from tfedge.shell import Answer, serve
from tfedge.targets import conditions, counters, litert, power
from tfedge.targets.amx import refuse_amx
from tfedge.targets.machine import PeakMemory, describe, isa, load_average, processors
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import random_inputs
from tfedge.tflite.interpreter import Interpreter, runtime_version
from tfedge.tflite.single import single_op

SAMPLE_NS = 1_000_000
"""A sample lasts at least about this long: the clock and the call then cost next to nothing."""

WARM_UP_NS = 50_000_000
_WARM_UP_RUNS = 3
_MODULE = "tfedge.targets.host_worker"

Arrays = dict[str, np.ndarray]


def probe(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Start-up time, memory and delegation of one file, run once.

    Args:
        values: "threads".
        arrays: "file", uint8.
    """
    data = arrays["file"].tobytes()
    runtime_version()  # Loads the library, which is not the file's cost.
    memory = PeakMemory()
    begin = time.perf_counter_ns()
    interpreter = Interpreter(data, threads=values["threads"])
    init_ns = time.perf_counter_ns() - begin
    interpreter.run(random_inputs(interpreter.inputs))
    peak_mb = memory.megabytes()
    ops = interpreter.ops()
    partitions = {op.partition for op in ops if op.delegated}
    return Answer(
        {
            "init_ms": init_ns / 1e6,
            "peak_mb": peak_mb,
            "delegated_ops": sum(op.delegated for op in ops),
            "total_ops": len(ops),
            "partitions": len(partitions),
        }
    )


def measure(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Times files in turn: one sample of each per round.

    Before each sample the file runs once untimed where there are several, so that the caches hold
    it and not the one before.

    Args:
        values: "runs" (rounds), "threads", "count" of files, "amx_off".
        arrays: "file0", "file1", ..., uint8.

    Returns:
        "wall_ns" and "cpu_ns", float64 [runs, count], nanoseconds per inference; and fields of a
        Timing about the machine: instruction sets, the load before the start, its conditions.
    """
    load, before = load_average(), conditions.read()
    count, rounds, threads = values["count"], values["runs"], values["threads"]
    files = [_ready(arrays[f"file{i}"].tobytes(), threads) for i in range(count)]
    inner = [_inner_loops(file) for file in files]
    # One thread: only its own CPU time. More: the kernels' threads count, so the process's.
    cpu_clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    wall, cpu = np.zeros((rounds, count)), np.zeros((rounds, count))
    gc.disable()
    for r in range(rounds):
        for i, file in enumerate(files):
            if count > 1:
                file.invoke()
            wall[r, i], cpu[r, i] = _sample(file, inner[i], cpu_clock)
    facts = {
        "isa": isa(amx=not values["amx_off"]),
        "load": load if load == load else "nan",
        "device": describe(runtime_version()),
        "cpus": processors(),
        **conditions.compare(before, conditions.read()),
    }
    return Answer(facts, {"wall_ns": wall, "cpu_ns": cpu})


def _ready(data: bytes, threads: int) -> Interpreter:
    interpreter = Interpreter(data, threads=threads)
    interpreter.set_inputs(random_inputs(interpreter.inputs))
    return interpreter


def _inner_loops(file: Interpreter) -> int:
    """Warms a file up and says how many inferences make a sample."""
    begin = time.perf_counter_ns()
    times: list[int] = []
    while len(times) < _WARM_UP_RUNS or time.perf_counter_ns() - begin < WARM_UP_NS:
        before = time.perf_counter_ns()
        file.invoke()
        times.append(time.perf_counter_ns() - before)
    return max(1, -(-SAMPLE_NS // max(1, min(times))))


def _sample(file: Interpreter, loops: int, cpu_clock: Callable[[], int]) -> tuple[float, float]:
    cpu, wall = cpu_clock(), time.perf_counter_ns()
    for _ in range(loops):
        file.invoke()
    wall, cpu = time.perf_counter_ns() - wall, cpu_clock() - cpu
    return wall / loops, cpu / loops


def infer(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Runs a file on samples.

    Args:
        values: Not used: the arrays say it all.
        arrays: "file", uint8, and "input:<name>" [N, ...] of the file's own dtypes.
    """
    del values
    inputs = {k.partition(":")[2]: v for k, v in arrays.items() if k.startswith("input:")}
    return Answer({}, Interpreter(arrays["file"].tobytes()).run_all(inputs))


def profile_ops(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Times of the ops outside XNNPACK: by the runtime's profiler, or each alone where it cannot.

    Args:
        values: "runs".
        arrays: "file", uint8.
    """
    try:
        return litert.profile(values, arrays)
    except TargetError as error:
        why = f"Ops were timed alone, each in a file of its own ({error.found})."
    data = arrays["file"].tobytes()
    outside = [op.index for op in Interpreter(data).ops() if not op.delegated]
    model = flatbuffer.read(data)
    ops = [[i, us] for i in outside if (us := _alone_us(model, i, values["runs"]))]
    return Answer({"ops": ops, "kernels": [], "delegated_us": None, "note": why})


def _alone_us(model: Any, position: int, runs: int) -> float:
    """Microseconds of the quickest run of one op in a file of its own; 0 where it cannot run so."""
    try:
        file = Interpreter(single_op(model, position), kernels="builtin")
        file.set_inputs(random_inputs(file.inputs))
        file.invoke()
    except TfedgeError:
        return 0.0
    loops = _inner_loops(file)
    return min(_sample(file, loops, time.thread_time_ns)[0] for _ in range(runs)) / 1e3


def list_ops(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Runs a file once and says which ops XNNPACK took.

    Args:
        values: Not used.
        arrays: "file", uint8.

    Returns:
        "outside": positions of the ops that it left.
    """
    del values
    interpreter = _ready(arrays["file"].tobytes(), 1)
    interpreter.invoke()
    return Answer({"outside": [op.index for op in interpreter.ops() if not op.delegated]})


def repeat(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Runs a file a number of times, and measures nothing: others count from outside.

    Args:
        values: "times", "threads".
        arrays: "file", uint8.
    """
    file = _ready(arrays["file"].tobytes(), values["threads"])
    for _ in range(values["times"]):
        file.invoke()
    return Answer()


def instruments(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Hardware events and energy of an inference, as far as the machine can tell them.

    Args:
        values: "threads", "amx".
        arrays: "file", uint8.

    Returns:
        Fields of a Timing; see `tfedge.targets.counters` and `tfedge.targets.power`. "why" says
        what could not be had.
    """
    sensor, why = power.find(), counters.problem()
    if sensor is None and why:
        return Answer({"why": why})
    file = _ready(arrays["file"].tobytes(), values["threads"])
    _inner_loops(file)
    found: dict[str, Any] = {"why": why}
    if not why:
        seconds = _sample(file, 3, time.perf_counter_ns)[0] / 1e9
        request = {"threads": values["threads"], "amx": values.get("amx", False)}
        found.update(counters.count(_MODULE, request, arrays, seconds).values)
    if sensor is not None:
        try:
            joules = power.joules_per_run(sensor, file.invoke)
            found.update(energy_mj=joules * 1e3, power_sensor=sensor.name)
        except (OSError, ValueError) as error:
            found["why"] = "; ".join(w for w in (found["why"], f"{sensor.name}: {error}") if w)
    return Answer(found)


def about(values: dict[str, Any], arrays: Arrays) -> Answer:
    """Loads the runtime.

    Args:
        values: Not used.
        arrays: Not used.

    Returns:
        "runtime": its version.
    """
    del values, arrays
    return Answer({"runtime": runtime_version()})


TASKS: dict[str, Callable[[dict[str, Any], Arrays], Answer]] = {
    "about": about,
    "instruments": instruments,
    "ops": list_ops,
    "probe": probe,
    "profile": profile_ops,
    "repeat": repeat,
    "run": infer,
    "time": measure,
}


def _answer(values: dict[str, Any], arrays: Arrays) -> Answer:
    # Before the runtime loads: it asks for AMX once.
    off = not values.get("amx") and refuse_amx()
    try:
        return TASKS[values["do"]]({**values, "amx_off": off}, arrays)
    except TfedgeError as error:
        return Answer(
            {"error": str(error), "kind": "input" if isinstance(error, InputError) else "model"}
        )


if __name__ == "__main__":
    serve(_answer)
