"""benchmark_model at work: files in a folder of the device, and single runs of the tool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.targets.adb.device import Device
from tfedge.targets.adb.output import Output, parse
from tfedge.targets.measured import TaskError
from tfedge.tflite import flatbuffer
from tfedge.tflite.ends import Ends, file_ends
from tfedge.tflite.tensors import TensorSpec

TOOL = "benchmark_model"
_WARM_UP, _OUTPUT = 3, "out.bin"


class Bench:
    """The tool and files in a folder of the device.

    Args:
        device: The device.
        folders: A folder here for what is on its way, and the one there, which has the tool.
        threads: Threads of the kernels.
        limit_s: Seconds that one run may take.

    Attributes:
        files: Names of the files there, by what they are called in messages.
    """

    def __init__(self, device: Device, folders: tuple[Path, str], threads: int, limit_s: float):
        self.device, self.limit_s, self._threads = device, limit_s, threads
        self._here, self._there = folders
        self.files = dict[str, str]()

    def add(self, who: str, data: bytes) -> None:
        """Brings a file; its name there is ours."""
        name = f"m{len(self.files)}.tflite"
        self.send(name, data)
        self.files[who] = name

    def send(self, name: str, data: bytes) -> None:
        """Copies bytes to a file of the folder there."""
        (self._here / name).write_bytes(data)
        self.device.push(self._here / name, f"{self._there}/{name}")

    def fetch(self, name: str) -> bytes | None:
        """A file of the folder there; None where there is none."""
        path = self._here / name
        return path.read_bytes() if self.device.pull(f"{self._there}/{name}", path) else None

    def time(self, who: str, runs: int) -> Output:
        """Times a file."""
        flags = {"num_runs": runs, "warmup_runs": _WARM_UP}
        return self.call(who, flags)

    def profile(self, who: str, runs: int) -> Output:
        """Profiles a file's ops."""
        flags = {"num_runs": runs, "warmup_runs": 1, "warmup_min_secs": 0}
        output = self.call(who, {**flags, "enable_op_profiling": "true"})
        if not output.ops:
            what = f"{who} was run on {self.device.name}, but its ops were not listed"
            raise TargetError(what, "no profile in benchmark_model's output")
        return output

    def call(self, who: str, flags: Mapping[str, Any]) -> Output:
        """One run of the tool.

        Raises:
            TaskError: It fails, or prints no times.
            TargetError: The device is gone, or the time is over.
        """
        limit = self.limit_s
        given = {
            "graph": self.files[who], "num_threads": self._threads, "use_xnnpack": "true",
            "min_secs": 0, "max_secs": int(limit), **flags,
        }  # fmt: skip
        line = " ".join([f"./{TOOL}", *(f"--{key}={value}" for key, value in given.items())])
        try:
            ended = self.device.run_in(self._there, line, limit)
        except TargetError as error:
            if "did not answer" not in error.what:
                raise
            what = f"{who} did not finish on {self.device.name} within {limit:g} s"
            raise TargetError(what, error.found) from error
        output = parse((ended.out + ended.err).decode("utf-8", "replace"))
        if ended.code or not output.count:
            found = output.complaint or ended.ending
            raise TaskError(f"{who} cannot be run on {self.device.name}", found)
        return output


class DeviceFile(Ends):
    """A file whose inputs and outputs go through files of the tool.

    Args:
        bench: The tool, with the file as "the file".
        data: The whole file.

    Raises:
        TargetError: Its inputs or outputs cannot go through files.
    """

    def __init__(self, bench: Bench, data: bytes) -> None:
        self._bench, self._name = bench, bench.device.name
        model = flatbuffer.read(data)
        try:
            self.inputs, self.outputs = file_ends(model)
        except ConversionError as error:
            raise TargetError(f"the file cannot be run on {self._name}", str(error)) from error
        if any(spec.numpy_dtype.kind not in "fiub" for spec in (*self.inputs, *self.outputs)):
            what = f"the file cannot be run on {self._name}"
            raise TargetError(what, "inputs or outputs of text")
        self._written = [int(i) for i in model.subgraphs[0].outputs]

    def run_each(self, pieces: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """A process for each piece."""
        for piece in pieces:
            yield self._run(piece)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        named = self.typed(inputs)
        if self.resized(named):
            fix = "Use a file whose free axes have been given these sizes"
            found = f"other sizes than {[spec.shape for spec in self.inputs]}"
            raise InputError(f"{self._name} runs the sizes the file stores", found, fix)
        keys = [f"x{i}" for i in range(len(self.inputs))]
        for key, spec in zip(keys, self.inputs, strict=True):
            self._bench.send(f"{key}.bin", np.ascontiguousarray(named[spec.name]).tobytes())
        shapes = [",".join(map(str, spec.shape)) for spec in self.inputs]
        flags = {
            "num_runs": 1, "warmup_runs": 0, "warmup_min_secs": 0,
            "input_layer": ",".join(keys), "input_layer_shape": ":".join(shapes),
            "input_layer_value_files": ",".join(f"{k}:{k}.bin" for k in keys),
            "output_filepath": _OUTPUT,
        }  # fmt: skip
        self._bench.call("the file", flags)
        return self._outputs(self._bench.fetch(_OUTPUT))

    def _outputs(self, raw: bytes | None) -> dict[str, np.ndarray]:
        """All outputs stand one behind the other, as the file lists them."""
        if raw is None:
            fix = "Use one built from TensorFlow or LiteRT of 2023 or later"
            raise TargetError("this benchmark_model does not write outputs", self._name, fix)
        specs: dict[int, TensorSpec] = {spec.index: spec for spec in self.outputs}
        arrays, position = dict[int, np.ndarray](), 0
        for index in self._written:
            spec = specs[index]
            size = int(np.prod(spec.shape)) * spec.numpy_dtype.itemsize
            part = raw[position : position + size]
            if len(part) < size:
                what = f"the outputs from {self._name} are incomplete"
                raise TargetError(what, f"{len(raw)} bytes")
            arrays[index] = np.frombuffer(part, spec.numpy_dtype).reshape(spec.shape)
            position += size
        return {spec.name: arrays[spec.index] for spec in self.outputs}
