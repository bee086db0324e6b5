"""Per-op times by LiteRT's own profiler, through the C functions of its library.

The Python package does not offer the profiler. These functions and structures are those of
LiteRT 2.3 (litert/c: litert_compiled_model.h, litert_profiler_event.h); another version may differ,
which is why this runs in a process of its own only. The profiler counts whole microseconds: a
quicker op shows as the share of runs in which the clock moved on, so the mean over many runs holds.
"""

from __future__ import annotations

import ctypes as c
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import TargetError
from tfedge.shell import Answer
from tfedge.tflite.interpreter import runtime_library

_WARM_UP_S, _MEASURE_S = 0.05, 0.35
_LAYOUT_BYTES = 68
_WRITE, _CPU = 1, 1
_FLOAT32 = 1
_OP, _DELEGATED_OP, _WHOLE = 2, 8, 1
_OPTIONS = {"runtime_options_string": b"enable_profiling = true\n", "xnnpack": b"num_threads = 1\n"}
_FIX = "Times of single ops need LiteRT 2.3; the file as a whole can still be measured"


_Run = tuple[dict[int, int], list[tuple[str, int]], int]


class _Event(c.Structure):
    _fields_ = (
        ("tag", c.c_char_p), ("type", c.c_int32), ("start", c.c_uint64), ("elapsed", c.c_uint64),
        ("memory", c.c_size_t * 6), ("index", c.c_uint64), ("subgraph", c.c_uint64),
        ("source", c.c_int32),
    )  # fmt: skip


class _TensorType(c.Structure):
    _fields_ = (("element", c.c_int32), ("layout", c.c_char * _LAYOUT_BYTES))


def profile(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answer:
    """Profiles a file on random inputs, one thread.

    Args:
        values: "runs", how many at least; a quick file runs for a third of a second.
        arrays: "file", uint8.

    Returns:
        "ops" (pairs of position and microseconds, ops outside the delegate), "kernels" (pairs of
        XNNPACK's name and microseconds, in its order) and "delegated_us", their sum: means over the
        quickest quarter of the runs. What the profiler itself takes is in none of them.

    Raises:
        TargetError: The library is not there, or a call of it fails.
    """
    with tempfile.TemporaryDirectory(prefix="tfedge-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(arrays["file"].tobytes())
        compiled = _Compiled(path)
        _for(_WARM_UP_S, compiled.run, 3)
        runs = _for(_MEASURE_S, compiled.run, int(values["runs"]))
    quick = sorted(runs, key=lambda r: r[2])[: -(-len(runs) // 4)]
    places = sorted({i for ops, _, _ in quick for i in ops})
    mean = {i: float(np.mean([ops.get(i, 0) for ops, _, _ in quick])) for i in places}
    # All runs have the same kernels; a loop that ends at another time would have others.
    names = [name for name, _ in quick[0][1]]
    same = [[us for _, us in kernels] for _, kernels, _ in quick if len(kernels) == len(names)]
    kernels = list(zip(names, np.mean(same, 0).tolist() if names else [], strict=True))
    return Answer(
        {
            "ops": [[i, us] for i, us in mean.items()],
            "kernels": kernels,
            "delegated_us": sum(us for _, us in kernels),
            "note": "",
        }
    )


def _for(seconds: float, run: Callable[[], _Run], least: int) -> list[_Run]:
    end, found = time.perf_counter() + seconds, [run() for _ in range(least)]
    while time.perf_counter() < end:
        found.append(run())
    return found


class _Compiled:
    """A file in LiteRT's compiled model, with filled buffers and a profiler."""

    def __init__(self, path: Path) -> None:
        found = runtime_library()
        if found is None:
            raise TargetError("the runtime's library is not there", "libLiteRt", _FIX)
        self._library = c.CDLL(str(found), mode=c.RTLD_LOCAL)
        self._keep: list[Any] = []
        self._env, model = c.c_void_p(), c.c_void_p()
        self._call("CreateEnvironment", 0, None, c.byref(self._env))
        self._call("CreateModelFromFile", self._env, str(path).encode(), c.byref(model))
        self._model, self._signature, self._profiler = c.c_void_p(), c.c_void_p(), c.c_void_p()
        self._call("CreateCompiledModel", self._env, model, self._options(), c.byref(self._model))
        self._call("GetModelSignature", model, c.c_size_t(0), c.byref(self._signature))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")
        self._call("CompiledModelGetProfiler", self._model, c.byref(self._profiler))

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, f"LiteRt{name}", None)
        if function is None:
            raise TargetError("the runtime's library has no such function", f"LiteRt{name}", _FIX)
        function.restype = c.c_int
        status = function(*arguments)
        if status:
            raise TargetError("the profiler cannot run the file", f"LiteRt{name}: {status}", _FIX)

    def _options(self) -> c.c_void_p:
        options = c.c_void_p()
        self._call("CreateOptions", c.byref(options))
        self._call("SetOptionsHardwareAccelerators", options, _CPU)
        free = c.CFUNCTYPE(None, c.c_void_p)(lambda _: None)
        self._keep.append(free)
        for key, text in _OPTIONS.items():
            body, option = c.create_string_buffer(text), c.c_void_p()
            self._keep.append(body)
            self._call("CreateOpaqueOptions", key.encode(), body, free, c.byref(option))
            self._call("AddOpaqueOptions", options, option)
        return options

    def _buffers(self, kind: str) -> Any:
        count = c.c_size_t()
        self._call(f"GetNumSignature{kind}s", self._signature, c.byref(count))
        layouts = (c.c_char * _LAYOUT_BYTES * count.value)()
        if kind == "Output":
            self._call(
                "GetCompiledModelOutputTensorLayouts",
                self._model, c.c_size_t(0), count, layouts, c.c_bool(True),
            )  # fmt: skip
        made = (c.c_void_p * count.value)()
        for i in range(count.value):
            made[i] = self._buffer(kind, i, layouts)
        return made

    def _buffer(self, kind: str, i: int, layouts: Any) -> int | None:
        tensor, needs, buffer = c.c_void_p(), c.c_void_p(), c.c_void_p()
        what, place = _TensorType(), (c.c_size_t(0), c.c_size_t(i))
        self._call(f"GetSignature{kind}TensorByIndex", self._signature, place[1], c.byref(tensor))
        self._call("GetRankedTensorType", tensor, c.byref(what))
        if kind == "Input":
            layout = c.byref(what, _TensorType.layout.offset)
            self._call("GetCompiledModelInputTensorLayout", self._model, *place, layout)
        else:
            layout_of = c.addressof(layouts) + _LAYOUT_BYTES * i
            c.memmove(c.addressof(what) + _TensorType.layout.offset, layout_of, _LAYOUT_BYTES)
        self._call(f"GetCompiledModel{kind}BufferRequirements", self._model, *place, c.byref(needs))
        self._call(
            "CreateManagedTensorBufferFromRequirements",
            self._env, c.byref(what), needs, c.byref(buffer),
        )  # fmt: skip
        if kind == "Input":
            self._fill(buffer, what.element)
        return buffer.value

    def _fill(self, buffer: c.c_void_p, element: int) -> None:
        """Floats in [0, 1); zeros for all else, which may be indices."""
        size, memory = c.c_size_t(), c.c_void_p()
        self._call("GetTensorBufferPackedSize", buffer, c.byref(size))
        self._call("LockTensorBuffer", buffer, c.byref(memory), _WRITE)
        if element == _FLOAT32:
            data = np.random.default_rng(0).random(size.value // 4, np.float32).tobytes()
        else:
            data = bytes(size.value)
        c.memmove(memory, data, len(data))
        self._call("UnlockTensorBuffer", buffer)

    def run(self) -> _Run:
        """One inference: microseconds by op outside the delegate, of its kernels, and in all."""
        self._call("StartProfiler", self._profiler)
        self._call(
            "RunCompiledModel", self._model, c.c_size_t(0),
            c.c_size_t(len(self._inputs)), self._inputs,
            c.c_size_t(len(self._outputs)), self._outputs,
        )  # fmt: skip
        self._call("StopProfiler", self._profiler)
        count = c.c_int()
        self._call("GetNumProfilerEvents", self._profiler, c.byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        self._call("ResetProfiler", self._profiler)
        ops: dict[int, int] = {}
        inside: list[tuple[str, int]] = []
        total = 0
        for event in events:
            if event.type == _OP and event.subgraph == 0:
                ops[event.index] = ops.get(event.index, 0) + event.elapsed
            elif event.type == _DELEGATED_OP:
                inside.append(((event.tag or b"").decode("utf-8", "replace"), event.elapsed))
            elif event.type == _WHOLE and event.tag == b"Invoke":
                total += event.elapsed
        return ops, inside, total
