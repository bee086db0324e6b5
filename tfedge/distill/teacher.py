"""A teacher as a function of the student's inputs, and what is known of its outputs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfedge._keras import flavour, tf
from tfedge.bridge import ServingModel, load_model
from tfedge.data import InputSpec
from tfedge.distill.targets import looks_like
from tfedge.errors import InputError, ModelError
from tfedge.graph.trace import functional_of, output_names
from tfedge.heads import Head, heads
from tfedge.sources import model_inputs
from tfedge.tflite import TFLiteModel, check_runs

_PROBE_SIZE = 32
_ACTIVATIONS = ("softmax", "sigmoid", "linear")


class RecordedTeacher(ABC):
    """A teacher whose outputs are looked up, for the samples that it was recorded for alone.

    Attributes:
        heads: Its outputs, in the order of the student that it was recorded for.
    """

    heads: tuple[Head, ...]

    @abstractmethod
    def __call__(self, x: Any) -> list[Any]:
        """The outputs for a batch, in the order of `heads`."""

    @abstractmethod
    def failure(self) -> InputError | None:
        """Why the last lookup failed, once; TensorFlow wraps errors raised inside a step."""


class Teacher:
    """Runs the teacher in inference mode; held outside Keras's tracking, so it is never trained.

    Args:
        teacher: A model of either Keras, the path of one, a .tflite file (its path or a
            `TFLiteModel`), a `TeacherCache`, or a function of tensors (traced in a tf.function)
            that takes what the student takes.
        student: The model that learns.
        activation: "auto", or the last activation of the teacher's outputs ("softmax", "sigmoid",
            "linear"). A teacher without a Keras graph is tried on random inputs: non-negative rows
            that sum to 1 are taken for a softmax; values that all lie between 0 and 1 beside a
            sigmoid student for a sigmoid; the rest for logits.

    Attributes:
        model: The Keras model whose layers can be seen, or None.
        heads: The teacher's outputs in the order of the student's.
        in_graph: TensorFlow ops only: it can be compiled by XLA and needs no Python.

    Raises:
        InputError: The outputs or inputs of the two do not match, the teacher cannot be run, or
            its outputs contradict `activation`.
        ModelError: The student's outputs are not known.
    """

    def __init__(self, teacher: Any, student: Any, activation: str = "auto") -> None:
        if activation not in (*_ACTIVATIONS, "auto"):
            fix = f"Choose one of: auto, {', '.join(_ACTIVATIONS)}"
            raise InputError("unknown teacher_activation", f"'{activation}'", fix)
        if teacher is student:
            raise InputError("student and teacher are the same model", student.name)
        self._student_heads = heads(student)
        self._inputs = model_inputs(student)
        self._order: tuple[str, ...] | None = None
        self._run, self.model = _opened(teacher, self._inputs)
        self.in_graph = flavour(self._run) is not None
        if self.model is not None:
            self._check_inputs()
        self.heads = self._read_heads(activation)
        self._check_outputs()

    def failure(self) -> InputError | None:
        """See `RecordedTeacher.failure`; None for a teacher that is run."""
        return self._run.failure() if isinstance(self._run, RecordedTeacher) else None

    def __call__(self, x: Any) -> list[Any]:
        """Returns the teacher's outputs in the order of the student's, without gradients."""
        x = self._arranged(x)
        outputs = self._run(x, training=False) if self.in_graph else self._run(x)
        return [tf.stop_gradient(tf.convert_to_tensor(part)) for part in self._aligned(outputs)]

    def _arranged(self, x: Any) -> Any:
        """Inputs by the student's names become the teacher's, in order, where names differ."""
        if not isinstance(x, Mapping) or self._order is None:
            return x
        parts = [x[s.name] for s in self._inputs]
        return dict(zip(self._order, parts, strict=True))

    def _check_inputs(self) -> None:
        wanted = model_inputs(self.model)
        if len(wanted) != len(self._inputs):
            raise InputError(
                "teacher and student take different inputs",
                f"{len(wanted)} and {len(self._inputs)}",
            )
        names = {s.name for s in wanted}
        same = names == {s.name for s in self._inputs}
        pairs = {s.name: s for s in wanted} if same else {}
        for index, mine in enumerate(self._inputs):
            theirs = pairs.get(mine.name, wanted[index])
            if not _compatible(theirs.shape, mine.shape):
                raise InputError(
                    "teacher and student take inputs of different shapes",
                    f"'{theirs.name}' {theirs.needs} and '{mine.name}' {mine.needs}",
                )
        self._order = None if same else tuple(s.name for s in wanted)

    def _aligned(self, outputs: Any) -> list[Any]:
        """A list in the order of the student's outputs: by name where the names agree."""
        names = [h.name for h in self._student_heads]
        if isinstance(outputs, Mapping):
            if set(outputs) == set(names):
                return [outputs[n] for n in names]
            outputs = list(outputs.values())
        parts = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        theirs = [] if self.model is None else output_names(functional_of(self.model))
        if len(theirs) == len(parts) and set(theirs) == set(names):
            parts = [parts[theirs.index(n)] for n in names]
        return parts

    def _read_heads(self, declared: str) -> tuple[Head, ...]:
        """The teacher's outputs in the order of the student's."""
        known: Any = self._run.heads if isinstance(self._run, RecordedTeacher) else None
        if self.model is not None:
            known = tuple(self._aligned(list(heads(self.model))))
        if known and declared == "auto" and all(h.activation != "unknown" for h in known):
            return known
        if isinstance(self._run, RecordedTeacher):  # it knows no other samples than its own
            return tuple(_head(h, None, "", declared) for h in known)
        values = self._probe()
        mine = [h.activation for h in self._student_heads]
        mine += ["linear"] * (len(values) - len(mine))
        if not known:
            names = [h.name for h in self._student_heads] + [""] * len(values)
            known = [Head(n, (None, *v.shape[1:]), "") for n, v in zip(names, values, strict=False)]
        rows = zip(known, values, mine, strict=False)
        return tuple(_head(h, v, act, declared) for h, v, act in rows)

    def _probe(self) -> list[np.ndarray]:
        """Runs the teacher on random samples to see what it gives."""
        try:
            return [part.numpy() for part in self(random_inputs(self._inputs))]
        except Exception as error:  # whatever a user's function raises
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError("the teacher cannot be run on the student's inputs", found) from error

    def _check_outputs(self) -> None:
        mine, theirs = self._student_heads, self.heads
        if len(mine) != len(theirs):
            raise InputError(
                "teacher and student have different numbers of outputs",
                f"{len(theirs)} and {len(mine)}",
            )
        for a, b in zip(mine, theirs, strict=True):
            if _compatible(a.shape, b.shape):
                continue
            if len(a.shape) == len(b.shape) == 2:
                what = "teacher and student tell apart different numbers of classes"
                raise InputError(what, f"{b.units} and {a.units} in output '{a.name}'")
            found = f"{b.shape} and {a.shape} in output '{a.name}'"
            raise InputError("teacher and student have outputs of different shapes", found)


def _head(head: Head, values: np.ndarray | None, beside: str, declared: str) -> Head:
    """An output of a teacher with its activation: as its graph says, else as its values look.

    Args:
        head: The output; its activation is "" where there is no graph.
        values: On random inputs, or None.
        beside: Activation of the student's output.
        declared: "auto", or what the user says.

    Raises:
        InputError: The user says something else than what is seen.
    """
    seen = head.activation
    if seen not in ("softmax", "sigmoid") and values is not None:
        if declared != "auto" or seen in ("", "unknown"):
            seen = looks_like(values, beside if declared == "auto" else declared)
    if declared == "auto":
        return Head(head.name, head.shape, seen)
    # Values between 0 and 1 that happen to sum to 1 may be labels of their own.
    chance = declared == "sigmoid" and seen == "softmax" and head.activation != "softmax"
    if seen != declared and not chance:
        found = f"'{declared}', and output '{head.name}' is seen to be {seen}"
        raise InputError(
            "teacher_activation contradicts the teacher", found, "Leave it out, or correct it"
        )
    return Head(head.name, head.shape, declared)


def random_inputs(specs: tuple[InputSpec, ...], count: int = 2) -> Any:
    """Random samples in [0, 1): a tensor for one input, else a dict by name.

    Args:
        specs: Of a model's inputs; free axes get 32 positions.
        count: Samples.
    """
    rng = np.random.default_rng(0)
    made = {}
    for spec in specs:
        shape = (count, *(d or _PROBE_SIZE for d in spec.shape[1:]))
        made[spec.name] = tf.cast(rng.random(shape), spec.dtype)
    return made if len(made) > 1 else next(iter(made.values()))


def _opened(teacher: Any, inputs: tuple[InputSpec, ...]) -> tuple[Any, Any]:
    """What runs a teacher, and the Keras model whose layers can be seen (or None)."""
    if isinstance(teacher, (str, Path)):
        is_file = str(teacher).endswith(".tflite")
        teacher = TFLiteModel.load(teacher) if is_file else load_model(teacher)
    if isinstance(teacher, TFLiteModel):
        return _File(teacher, inputs), None
    if isinstance(teacher, ServingModel):
        return _Serving(teacher), None
    if not callable(teacher):
        raise InputError("the teacher is no model", f"a {type(teacher).__name__}")
    if flavour(teacher) is None:
        return teacher, None
    try:
        functional_of(teacher)
    except ModelError:  # subclassed: it runs, but its layers cannot be seen
        return teacher, None
    return teacher, teacher


class _File:
    """A .tflite file on the host's runtime, batch by batch."""

    def __init__(self, file: TFLiteModel, inputs: tuple[InputSpec, ...]) -> None:
        check_runs(file.data)
        self._file, self._lock = file, threading.Lock()
        self._names = [s.name for s in inputs]
        known = [s.name for s in file.inputs]
        if len(known) != len(self._names):
            raise InputError(
                "teacher and student take different inputs", f"{len(known)} and {len(self._names)}"
            )
        self._theirs = self._names if set(known) == set(self._names) else known

    def __call__(self, x: Any) -> Any:
        """Outputs by name, float32 (dequantized)."""
        parts = [x[n] for n in self._names] if isinstance(x, Mapping) else tf.nest.flatten(x)
        specs = self._file.outputs
        kinds = [tf.float32 if s.quantized else tf.as_dtype(s.dtype) for s in specs]
        values = tf.nest.flatten(tf.numpy_function(self._predict, parts, kinds))
        for value, spec in zip(values, specs, strict=True):
            free = [None if i in spec.free else d for i, d in enumerate(spec.shape)]
            value.set_shape([None, *free[1:]])
        return {s.name: v for s, v in zip(specs, values, strict=True)}

    def _predict(self, *arrays: np.ndarray) -> list[np.ndarray]:
        with self._lock:
            given = dict(zip(self._theirs, arrays, strict=True))
            found = self._file.predict(given)
        return [found[s.name] for s in self._file.outputs]


class _Serving:
    """A SavedModel's signature."""

    def __init__(self, model: ServingModel) -> None:
        self._model = model

    def __call__(self, x: Any) -> Any:
        names = list(self._model.inputs)
        given = x if isinstance(x, Mapping) else dict(zip(names, tf.nest.flatten(x), strict=True))
        return self._model(given)


def _compatible(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    pairs = zip(a[1:], b[1:], strict=False)
    return len(a) == len(b) and all(x is None or y is None or x == y for x, y in pairs)
