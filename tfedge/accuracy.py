"""The accuracy of files on targets: the task's test samples, run there and here."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge import scoring
from tfedge._keras import tf
from tfedge.bench import Model, files_of, places_of
from tfedge.data import InputSpec
from tfedge.errors import ConversionError, InputError, TfedgeError
from tfedge.heads import Head
from tfedge.progress import console, track
from tfedge.record import HOST, Score, Timing
from tfedge.scoring import as_arrays, joined
from tfedge.sources import ImageSource
from tfedge.targets import Target
from tfedge.targets.device import threads_on
from tfedge.targets.host import HostTarget
from tfedge.task import Task
from tfedge.task_readers import read_test
from tfedge.tflite import Interpreter, check_runs, flatbuffer
from tfedge.tflite.ends import file_ends
from tfedge.tflite.tensors import TensorSpec, dequantize, quantize, saturated, value_range

SAMPLES = 200
"""Test samples that are run on targets that are emulated or simulated, where none are asked for."""

SATURATED = 0.05
"""Share of an input's values beyond what the file can hold from which on a score says so."""

_BATCH_BYTES, _BATCH, _SLOW_BATCH = 64_000_000, 256, 20
_PASSING = ("DEQUANTIZE", "QUANTIZE", "CAST", "RESHAPE", "SQUEEZE")
_ACTIVATIONS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}


def tests_of(
    models: Sequence[Model] | Model, task: Any, samples: int | None = None
) -> dict[str, Test]:
    """Fits a task to files, before anything is run.

    Args:
        models: The files, as `bench.measure` takes them.
        task: A Task, or what `task_readers.read_test` takes.
        samples: How many; None takes all on hardware, and `SAMPLES` where targets are emulated or
            simulated.

    Returns:
        What each file is tested on, by the name that results show.

    Raises:
        InputError: A task that cannot be read, or does not fit the files; or `samples` below 1.
    """
    if samples is not None and (isinstance(samples, bool) or samples < 1):
        raise InputError("samples must be a whole number, at least 1", repr(samples))
    # Read once for all files whose inputs and outputs have the same names.
    read: dict[Any, Task] = {}
    tests = {}
    for name, data in files_of(models).items():
        ends = _ends(data, name)
        inputs, outputs = (tuple(s.name for s in specs) for specs in ends)
        if (inputs, outputs) not in read:
            read[inputs, outputs] = read_test(task, inputs, outputs)
        test = Test.of(read[inputs, outputs], data, name)
        tests[name] = dataclasses.replace(test, samples=samples)
    return tests


def with_scores(
    timings: Sequence[Timing], tests: Mapping[str, Test], target: str | Sequence[str]
) -> list[Timing]:
    """Adds to timings how good the files are on their targets.

    The test part of the task is run through each file on each target, in batches, and through the
    runtime of this machine. Where fewer samples than all are asked for they are drawn at random by
    the task's seed, the same ones for every file and target.

    Args:
        timings: Of these files on these targets, as `bench.measure` gives them.
        tests: Of the files.
        target: Name of a target, or several.

    Returns:
        The same timings, each with its `score`. A target that cannot run files, or fails, leaves
        the reason there.
    """
    found = {
        (place.name, name): _score(place, test)
        for place in places_of(target)
        for name, test in tests.items()
    }
    return [dataclasses.replace(t, score=found.get((t.target, t.model))) for t in timings]


@dataclass(frozen=True)
class Test:
    """A file and the task's test part, in the form that the file takes.

    Attributes:
        name: The file's name in results.
        data: The whole file.
        task: Bound to the file's inputs and outputs.
        inputs: The file's inputs.
        outputs: The file's outputs.
        samples: How many samples are asked for; None leaves it to the kind of target.
    """

    name: str
    data: bytes
    task: Task
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: int | None = None

    @classmethod
    def of(cls, task: Task, data: bytes, name: str) -> Test:
        """Binds a task to a file.

        Raises:
            InputError: They do not fit each other.
        """
        model = flatbuffer.read(data)
        inputs, outputs = _ends(data, name)
        specs = [
            InputSpec(
                s.name,
                (None, *(None if i in s.free else n for i, n in enumerate(s.shape) if i)),
                "float32" if s.quantized or s.numpy_dtype.kind == "f" else s.dtype,
            )
            for s in inputs
        ]
        test = _as_recorded(task, flatbuffer.get_metadata(data)).bind(specs)
        bound = dataclasses.replace(task, test=test)
        if task.train is None and not _known(task, flatbuffer.get_metadata(data)):
            _check_classes(bound, outputs)
        bound = bound if task.heads else _bound(bound, model, outputs)
        return cls(name, data, bound, inputs, outputs)

    def batches(self, limit: int, size: int) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
        """Inputs by name, real values, and labels, up to so many samples."""
        part = limit < self.task.test.size
        left = limit
        key = tf.constant(self.task.seed, tf.int64) if part else None
        for x, y, *_ in self.task.test.epoch(size, key):
            named = as_arrays(x)
            named = named if isinstance(named, Mapping) else {self.inputs[0].name: named}
            labels, count = as_arrays(y), len(next(iter(named.values())))
            if count > left:
                named, labels = {k: v[:left] for k, v in named.items()}, _first(labels, left)
            left -= min(left, count)
            yield dict(named), labels
            if not left:
                return

    def coded(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Real values as the file stores them."""
        return {s.name: quantize(inputs[s.name], s) for s in self.inputs}

    def real(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the file gives as real values."""
        return {s.name: dequantize(outputs[s.name], s) for s in self.outputs}


def _score(place: Target, test: Test) -> Score:
    size, quick = test.task.test.size, place.source == "measured"
    count = min(size, test.samples or (size if quick else SAMPLES))
    one = sum(math.prod(s.shape[1:]) * 4 for s in test.inputs)
    batch = max(1, min(_BATCH_BYTES // max(1, one), _BATCH if quick else _SLOW_BATCH))
    labels: list[Any] = []
    there: list[dict[str, np.ndarray]] = []
    here: list[dict[str, np.ndarray]] = []
    text = f"{test.name} on {place.name}: {count:,} test samples"
    if not console().is_terminal:
        console().print(f"{text} ...", markup=False, highlight=False)
    beyond, every = Counter[str](), Counter[str]()
    # The host beside itself would say nothing.
    alone = isinstance(place, HostTarget) and place.name == HOST
    try:
        place.prepare(threads_on(place, None))
        check_runs(test.data)
        own = None if alone else Interpreter(test.data)
        for x, y in track(test.batches(count, batch), text, -(-count // batch)):
            codes = test.coded(x)
            there.append(test.real(place.run(test.data, codes)))
            here += [] if own is None else [test.real(own.run_all(codes))]
            labels.append(y)
            beyond.update({s.name: saturated(x[s.name], s) for s in test.inputs})
            every.update({s.name: x[s.name].size for s in test.inputs})
    except TfedgeError as error:
        return Score(of=size, error=str(error))
    shares = {name: beyond[name] / max(1, every[name]) for name in every}
    score = _scored(test.task, joined(labels), joined(there), None if alone else joined(here))
    errors = {
        k: _standard_error(v, count) for k, v in score.scores.items() if k.endswith("accuracy")
    }
    note = _saturation(test, shares)
    return dataclasses.replace(score, samples=count, of=size, standard_error=errors, note=note)


def _scored(task: Task, truth: Any, there: Any, here: Any) -> Score:
    """The scores of outputs, beside those of the host unless that is where they come from."""
    scores = task.score(truth, there)
    if here is None:
        return Score(scores=scores, host=dict(scores))
    pairs = task.compare(truth, there, here)
    return Score(
        scores=scores,
        host=task.score(truth, here),
        different={k: p.different for k, p in pairs.items()},
        difference_error={k: p.standard_error for k, p in pairs.items()},
        p_value={k: p.p_value for k, p in pairs.items()},
    )


def _saturation(test: Test, shares: Mapping[str, float]) -> str:
    """What to say of inputs of which a larger share than `SATURATED` is cut off."""
    notes = []
    for spec in test.inputs:
        if shares[spec.name] > SATURATED:
            low, high = value_range(spec)
            notes.append(
                f"{100 * shares[spec.name]:.0f} % of the values of input '{spec.name}' lie "
                f"outside what the file can hold ({low:.3g} to {high:.3g}): were the data "
                "preprocessed as in training?"
            )
    return " ".join(notes)


def _standard_error(share: float, count: int) -> float:
    return math.sqrt(max(0.0, share * (1 - share)) / count)


def _first(labels: Any, count: int) -> Any:
    if isinstance(labels, dict):
        return {k: v[:count] for k, v in labels.items()}
    return tuple(v[:count] for v in labels) if isinstance(labels, tuple) else labels[:count]


def _ends(data: bytes, name: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    try:
        inputs, outputs = file_ends(flatbuffer.read(data))
    except ConversionError as error:
        raise InputError(f"'{name}' cannot be scored", str(error)) from error
    return inputs, outputs


def _as_recorded(task: Task, metadata: Mapping[str, Any]) -> Any:
    """Images in the range and with the class numbers that the file's metadata state."""
    source = task.test
    if not isinstance(source, ImageSource):
        return source
    rule = metadata.get("preprocessing") or {}
    if "scale" in rule:
        scale, offset = float(rule["scale"]), float(rule.get("offset", 0.0))
        source = dataclasses.replace(source, scale=scale, offset=offset)
    if names := _known(task, metadata):
        numbers = np.array([names.index(label) for label in task.labels])
        source = dataclasses.replace(source, y=numbers[source.y])
    return source


def _known(task: Task, metadata: Mapping[str, Any]) -> list[str]:
    """The file's own names of its classes, where the task's are among them."""
    names = [str(name) for name in metadata.get("labels") or ()]
    return names if task.labels and set(task.labels) <= set(names) else []


def _check_classes(task: Task, outputs: tuple[TensorSpec, ...]) -> None:
    """Folders that are numbered by their names alone must be as many as the file's classes."""
    units = outputs[0].shape[-1] if outputs[0].shape else 1
    if isinstance(task.test, ImageSource) and units > 1 and units != len(task.labels):
        raise InputError(
            "the folder does not have the file's classes",
            f"{len(task.labels)} folders, {units} outputs",
            "Add an empty folder for each class without images: they are numbered by name",
        )


def _bound(task: Task, model: Any, outputs: tuple[TensorSpec, ...]) -> Task:
    """The task with what the labels mean beside the outputs of a file."""
    heads = tuple(Head(s.name, (None, *s.shape[1:]), _activation(model, s.index)) for s in outputs)
    kinds = (task.kind,) * len(heads) if isinstance(task.kind, str) else tuple(task.kind)
    if len(kinds) != len(heads):
        raise InputError(f"the file has {len(heads)} outputs", f"{len(kinds)} kinds")
    if "auto" in kinds and task.score_fn is None:
        names = [h.name for h in heads]
        y = scoring.by_output(task.test.sample_labels(), names, "labels")
        kinds = tuple(
            scoring.resolve_kind(y[h.name], h.shape, h.activation) if k == "auto" else k
            for k, h in zip(kinds, heads, strict=True)
        )
    return dataclasses.replace(task, heads=heads, kind=kinds)


def _activation(model: Any, tensor: int) -> str:
    """The function that made an output: "softmax", "sigmoid", else "linear"."""
    graph = model.subgraphs[0]
    makers = {int(t): op for op in graph.operators or [] for t in op.outputs}
    while tensor in makers:
        op = makers[tensor]
        name = flatbuffer.op_name(model, op)
        if name not in _PASSING:
            return _ACTIVATIONS.get(name, "linear")
        tensor = int(op.inputs[0])
    return "linear"
