"""A teacher as a function of the student's inputs, and what is known of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfedge._keras import flavour, keras, tf
from tfedge.errors import InputError, ModelError
from tfedge.heads import Head, heads
from tfedge.sources import model_inputs

_PROBE_SIZE = 32
_ACTIVATIONS = ("softmax", "sigmoid", "linear")


class Teacher:
    """Runs the teacher in inference mode; held outside Keras's tracking, so it is never trained.

    Args:
        teacher: A tf_keras or Keras 3 model, or a function of tensors (traced in a tf.function)
            that takes what the student takes.
        student: The model that learns.
        activation: "auto", or the last activation of the teacher's outputs ("softmax", "sigmoid",
            "linear"). A teacher without a Keras graph is tried on random inputs under "auto":
            non-negative rows that sum to 1 are taken for a softmax; values that all lie between 0
            and 1 beside a sigmoid student for a sigmoid; the rest for logits.

    Raises:
        InputError: The outputs or inputs of the two do not match, or the teacher cannot be run.
        ModelError: The student's outputs are not known.
    """

    def __init__(self, teacher: Any, student: Any, activation: str = "auto") -> None:
        if activation not in (*_ACTIVATIONS, "auto"):
            fix = f"Choose one of: auto, {', '.join(_ACTIVATIONS)}"
            raise InputError("unknown teacher_activation", f"'{activation}'", fix)
        if teacher is student:
            raise InputError("student and teacher are the same model", student.name)
        if not callable(teacher):
            raise InputError("the teacher is no model", f"a {type(teacher).__name__}")
        self._teacher = teacher
        self._is_keras = flavour(teacher) is not None
        self._inputs = model_inputs(student)
        self._order: tuple[str, ...] | None = None
        if flavour(teacher) == "tf_keras" and getattr(teacher, "inputs", None):
            self._check_inputs()
        self._student_heads = heads(student)
        self.heads = self._read_heads(activation)
        self._check_outputs()

    def __call__(self, x: Any) -> list[Any]:
        """Returns the teacher's outputs in the order of the student's, without gradients."""
        x = self._arranged(x)
        outputs = self._teacher(x, training=False) if self._is_keras else self._teacher(x)
        parts = self._aligned(outputs)
        return [tf.stop_gradient(tf.convert_to_tensor(part)) for part in parts]

    def _arranged(self, x: Any) -> Any:
        """Inputs by the student's names become the teacher's, in order, where names differ."""
        if not isinstance(x, Mapping) or self._order is None:
            return x
        parts = [x[s.name] for s in self._inputs]
        return dict(zip(self._order, parts, strict=True))

    def _check_inputs(self) -> None:
        wanted = model_inputs(self._teacher)
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
        theirs = list(getattr(self._teacher, "output_names", ()) or ())
        if len(theirs) == len(parts) and set(theirs) == set(names):
            parts = [parts[theirs.index(n)] for n in names]
        return parts

    def _read_heads(self, activation: str) -> tuple[Head, ...]:
        """The teacher's outputs in the order of the student's."""
        graph = flavour(self._teacher) == "tf_keras" and bool(getattr(self._teacher, "outputs", 0))
        if graph:
            found = tuple(self._aligned(list(heads(self._teacher))))
        else:
            found = self._probe()
        if activation == "auto":
            return found
        return tuple(Head(h.name, h.shape, activation) for h in found)

    def _probe(self) -> tuple[Head, ...]:
        """Runs the teacher on two random samples to see what it gives."""
        rng = np.random.default_rng(0)
        made = {}
        for spec in self._inputs:
            shape = (2, *(d or _PROBE_SIZE for d in spec.shape[1:]))
            made[spec.name] = tf.cast(rng.random(shape), spec.dtype)
        x = made if len(made) > 1 else next(iter(made.values()))
        try:
            parts = [part.numpy() for part in self(x)]
        except Exception as error:  # whatever a user's function raises
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError("the teacher cannot be run on the student's inputs", found) from error
        pairs = zip(parts, self._student_heads, strict=False)
        read = [Head(h.name, (None, *p.shape[1:]), _guess(p, h.activation)) for p, h in pairs]
        extra = [Head("", (None, *p.shape[1:]), "linear") for p in parts[len(read) :]]
        return tuple(read + extra)

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


def _compatible(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    pairs = zip(a[1:], b[1:], strict=False)
    return len(a) == len(b) and all(x is None or y is None or x == y for x, y in pairs)


def _guess(output: np.ndarray, student_activation: str) -> str:
    """What made these outputs, judged by their values."""
    values = output.astype(np.float64)
    inside = bool((values >= 0).all() and (values <= 1).all())
    if inside and output.ndim > 1 and output.shape[-1] > 1:
        if np.allclose(values.sum(axis=-1), 1.0, atol=1e-3):
            return "softmax"
    return "sigmoid" if inside and student_activation == "sigmoid" else "linear"


def require_tf_keras(student: Any) -> None:
    """Raises where the student is no tf_keras model.

    Raises:
        ModelError: It is of Keras 3, or no model.
    """
    if not isinstance(student, keras.Model):
        kind = flavour(student) or f"a {type(student).__name__}"
        raise ModelError(
            "the student must be a tf_keras model", str(kind), "Build it with tf_keras"
        )
