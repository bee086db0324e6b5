"""The stages of a recipe as frozen data: their keys, allowed values and legal order.

A key's allowed values stand beside its default (`tfedge.spec_keys`), so the check and the default
cannot drift apart. Every spec checks itself when it is built, from a file or in Python.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tfedge import spec_keys as keys
from tfedge.errors import RecipeError, TfedgeError, did_you_mean
from tfedge.schemes import CPUS, DEPTHWISE, SCHEMES


@dataclass(frozen=True)
class StageSpec:
    """Base of all stage specs: checks every key when it is built.

    Raises:
        RecipeError: A value of the wrong type or out of its range.
    """

    stage: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = f.metadata["check"](f.name, getattr(self, f.name))
            object.__setattr__(self, f.name, value)

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        """The keys of this stage in a recipe, `stage` left out."""
        return tuple(f.name for f in dataclasses.fields(cls))

    def to_dict(self) -> dict[str, Any]:
        """The stage as plain data: `stage` and every key that differs from its default."""
        out: dict[str, Any] = {"stage": self.stage}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            default = {} if f.default is dataclasses.MISSING else f.default
            if value != default:
                out[f.name] = list(value) if isinstance(value, tuple) else value
        return out

    def hash(self) -> str:
        """SHA-256 over the stage and ALL its values, defaults too.

        A key left out and the same key written with its default give the same hash; a default
        that a later version changes gives another, so the stage is done again.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        text = json.dumps({"stage": self.stage, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


# Names in `train.OPTIMIZERS` (this module does not load TensorFlow).
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")


@dataclass(frozen=True)
class TrainingSpec(StageSpec):
    """What every stage that trains has; the rate warms up and then falls along a cosine.

    Attributes:
        batch_size: Samples per step.
        optimizer: One of `OPTIMIZERS`.
        weight_decay: Decoupled weight decay per step (times the rate), or None.
        steps_per_execution: Steps in one call of the compiled function.
    """

    batch_size: int = keys.number(128, 1, whole=True)
    optimizer: str = keys.choice("adam", OPTIMIZERS)
    weight_decay: float | None = keys.number(None, 0)
    steps_per_execution: int = keys.number(1, 1, whole=True)


@dataclass(frozen=True)
class BaselineSpec(TrainingSpec):
    """Trains the baseline that the task's `build` makes.

    With a model given (`model:` or `--model`) that model IS the baseline and this stage leaves
    it as it is, saying so, unless `retrain` is true.

    Attributes:
        epochs: Passes over the training data.
        learning_rate: Peak of the schedule.
        retrain: Train also a model that was given.
    """

    stage: ClassVar[str] = "train"
    epochs: int = keys.number(8, 1, whole=True)
    learning_rate: float = keys.number(3e-3, 0, inside=True)
    retrain: bool = keys.flag(False)


# The times that each pruning schedule has, with their defaults, as fractions of the training.
SCHEDULE_TIMES: dict[str, dict[str, float]] = {
    "polynomial": {"begin": 0.0, "end": 0.75},
    "iterative": {"begin": 0.0, "end": 0.6},
    "constant": {"begin": 0.1},
    "one_shot": {},
}


AMOUNTS = ("sparsity", "target_macs", "target_params", "target_bytes")


@dataclass(frozen=True)
class PruneSpec(TrainingSpec):
    """Cuts channels during training, then removes them. Give exactly one of the first four.

    Attributes:
        sparsity: Fraction of the channels that is cut, 0 to 1 exclusive.
        target_macs: Multiply-accumulates that remain: a fraction, or a number above 1.
        target_params: Parameters that remain, likewise.
        target_bytes: Bytes of the (float32) weights that remain, likewise.
        scope: "uniform" (each group loses the same share) or "global" (all channels compete).
        importance: Name in `prune.importance.IMPORTANCE` or `MEASURED`; the latter look at the
            training data.
        round_to: Channels left are a multiple of this (8 suits XNNPACK's kernels; 1: no rounding).
        floor: Fraction of each group's channels that always stays; null: 0.1 with the global scope.
        blocks: Residual blocks that are removed first: their names, or how many (those that change
            the training data's signal least).
        group_lasso: Strength of the penalty that draws doomed channels to zero; 0 for none.
        schedule: How the sparsity rises: "polynomial", "iterative", "constant" or "one_shot".
        begin: Where in the training the schedule starts, as a fraction of it (polynomial and
            iterative: 0, constant: 0.1; one_shot has none).
        end: Where it has reached its final sparsity (polynomial: 0.75, iterative: 0.6; the others
            have none).
        steps: How many times the iterative schedule cuts (5).
        epochs: Passes over the training data; 0 cuts at once, without any training, so that
            the schedule and the keys of `TrainingSpec` have nothing to do.
        learning_rate: Peak of the learning rate's schedule.
        skip: Layers that are left alone: names or regular expressions.
        overrides: Sparsity by layer name or regular expression (first match counts).
    """

    stage: ClassVar[str] = "prune"
    sparsity: float | None = keys.number(None, 0, 1, inside=True)
    target_macs: float | None = keys.target()
    target_params: float | None = keys.target()
    target_bytes: float | None = keys.target()
    scope: str = keys.choice("uniform", ("uniform", "global"))
    importance: str = keys.word("l2")
    round_to: int = keys.number(8, 1, whole=True)
    floor: float | None = keys.number(None, 0, 1)
    blocks: int | tuple[str, ...] = keys.blocks()
    group_lasso: float = keys.number(0.0, 0)
    schedule: str = keys.choice("polynomial", tuple(SCHEDULE_TIMES))
    begin: float | None = keys.number(None, 0, 1)
    end: float | None = keys.number(None, 0, 1)
    steps: int | None = keys.number(None, 1, whole=True)
    epochs: int = keys.number(2, 0, whole=True)
    learning_rate: float = keys.number(1e-3, 0, inside=True)
    skip: tuple[str, ...] = keys.words((), regex=True)
    overrides: dict[str, float] = keys.sparsity_by_layer()

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [n for n in AMOUNTS if getattr(self, n) is not None]
        if len(given) != 1:
            raise RecipeError(
                f"prune needs exactly one of {', '.join(AMOUNTS)}",
                ", ".join(given) or "none of them",
                "Set the others to null" if given else "For example: sparsity: 0.5",
            )
        if self.steps is not None and self.schedule != "iterative":
            raise RecipeError(f"the schedule '{self.schedule}' has no steps", "", "Leave it out")
        if self.group_lasso and (self.schedule == "one_shot" or self.epochs == 0):
            raise RecipeError(
                "group_lasso needs training before the channels are cut",
                f"schedule '{self.schedule}', {self.epochs} epochs",
                "Use another schedule and at least one epoch",
            )
        self._check_times()

    def _check_times(self) -> None:
        """Refuses times that the schedule does not have, and an empty ramp."""
        times = self.times()
        for name in ("begin", "end"):
            if getattr(self, name) is not None and name not in times:
                raise RecipeError(
                    f"the schedule '{self.schedule}' has no {name}", "", "Leave it out"
                )
        if not times.get("begin", 0.0) < times.get("end", 1.0):
            raise RecipeError("begin must lie before end", f"{times}")

    def times(self) -> dict[str, float]:
        """The schedule's times, as fractions of the training: those given, else its defaults."""
        times = dict(SCHEDULE_TIMES[self.schedule])
        for name, value in (("begin", self.begin), ("end", self.end)):
            if value is not None and name in times:
                times[name] = value
        return times


@dataclass(frozen=True)
class DistillSpec(TrainingSpec):
    """Trains the model to answer like its teacher, the baseline.

    Attributes:
        epochs: Passes over the training data.
        temperature: Divides the logits before the softmax; more than 0. Or a name in
            `spec_keys.TEMPERATURES`, or with parameters {name: cosine, start: 6, end: 1}.
        alpha: Weight of the teacher's loss, 0 (labels only) to 1 (teacher only).
        features: Losses between intermediate outputs: names in `spec_keys.FEATURES`, or mappings
            like {name: fitnet, weight: 2}. With the baseline as teacher, the prune stages' plans
            say which of its channels are compared.
        learning_rate: Peak of the schedule.
        teacher: "baseline", or the path of another model (.tflite too), or several of these.
        combine: How several teachers count: "average", or "confidence" by sample.
        cache_teacher: Folder for the teacher's outputs, written once; see `distill.TeacherCache`.
    """

    stage: ClassVar[str] = "distill"
    epochs: int = keys.number(6, 1, whole=True)
    temperature: float | dict[str, Any] = keys.temperature(2.0)
    alpha: float = keys.number(0.7, 0, 1)
    features: tuple[dict[str, Any], ...] = keys.features()
    learning_rate: float = keys.number(1e-3, 0, inside=True)
    teacher: tuple[str, ...] = keys.words(("baseline",))
    combine: str = keys.choice("average", ("average", "confidence"))
    cache_teacher: str | None = keys.folder()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teacher:
            raise RecipeError("distill needs at least one teacher", "an empty list")
        if self.features and (self.cache_teacher or len(self.teacher) > 1):
            found = "cached outputs" if self.cache_teacher else f"{len(self.teacher)} teachers"
            raise RecipeError("features need one teacher whose layers can be seen", found)
        if self.combine == "confidence" and len(self.teacher) == 1:
            raise RecipeError("combine: confidence needs several teachers", "one", "Leave it out")


@dataclass(frozen=True)
class QatSpec(TrainingSpec):
    """Quantize-aware training.

    Attributes:
        scheme: Scheme that is simulated: "w8a8", "w8a16" or "w4a8".
        overrides: Scheme by layer name or regular expression, "float" among them.
        strict: A layer that does not get its scheme is an error.
        ranges: How activation ranges move: "moving_average", "learned" or "fixed".
        preserve: "sparsity": zeros stay; "clusters": equal weights stay equal; "": neither.
        start_step: Training steps in float before quantization begins.
        freeze_ranges_step: Step from which ranges stay; None for never.
        freeze_batch_norm_step: Step from which batch norm's statistics stay; None for never.
        epochs: Passes over the training data; 0 sets the ranges from calibration only.
        learning_rate: Peak of the schedule.
        calibration: Number of training samples that set the first ranges.
        distill: Train with the baseline as the teacher.
        temperature: As in distill; used where `distill` is true.
        alpha: As in distill; used where `distill` is true.
    """

    stage: ClassVar[str] = "qat"
    scheme: str = keys.choice("w8a8", tuple(n for n, s in SCHEMES.items() if s.full_integer))
    overrides: dict[str, str] = keys.scheme_by_layer()
    strict: bool = keys.flag(False)
    ranges: str = keys.choice("moving_average", keys.RANGE_MODES)
    preserve: str = keys.choice("", keys.PRESERVED)
    start_step: int = keys.number(0, 0, whole=True)
    freeze_ranges_step: int | None = keys.number(None, 0, whole=True)
    freeze_batch_norm_step: int | None = keys.number(None, 0, whole=True)
    epochs: int = keys.number(2, 0, whole=True)
    learning_rate: float = keys.number(2e-4, 0, inside=True)
    calibration: int = keys.number(256, 1, whole=True)
    distill: bool = keys.flag(False)
    temperature: float | dict[str, Any] = keys.temperature(2.0)
    alpha: float = keys.number(0.7, 0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = (self.freeze_ranges_step, self.freeze_batch_norm_step)
        if not self.epochs and (self.start_step or steps != (None, None)):
            raise RecipeError("steps of a qat stage need training", "epochs: 0", "Leave them out")
        if self.freeze_ranges_step is not None and self.freeze_ranges_step < self.start_step:
            raise RecipeError(
                "ranges cannot be frozen before quantization begins",
                f"start_step: {self.start_step}, freeze_ranges_step: {self.freeze_ranges_step}",
            )


@dataclass(frozen=True)
class ConvertSpec(StageSpec):
    """Writes TFLite files, scores the files themselves and compares them with the Keras model.

    Float schemes are written from the last model before quantize-aware training.

    Attributes:
        schemes: Schemes of the final model.
        baseline: Schemes of the baseline, for the rows that it is compared with.
        stages: Write a float32 file of every stage between as well.
        io: "int", "float" or "uint8": inputs and outputs of full-integer files.
        batch: Samples per inference of the files.
        calibration: Number of training samples for ranges (schemes without QAT).
        ptq: Steps of post-training quantization (schemes without QAT), as `tfedge.convert` has.
        verify: Number of test samples for the comparison layer by layer.
        cpu: One of `schemes.CPUS`: what files with 16-bit activations are written for.
        depthwise: One of `schemes.DEPTHWISE`, for files with 16-bit activations.
    """

    stage: ClassVar[str] = "convert"
    schemes: tuple[str, ...] = keys.words(
        ("float32", "float16", "w8_dynamic", "w8a8", "w8a16"), SCHEMES
    )
    baseline: tuple[str, ...] = keys.words(("float32", "float16", "w8_dynamic", "w8a8"), SCHEMES)
    stages: bool = keys.flag(True)
    io: str = keys.choice("int", ("int", "float", "uint8"))
    batch: int = keys.number(1, 1, whole=True)
    calibration: int = keys.number(256, 1, whole=True)
    ptq: tuple[str, ...] = keys.words((), keys.PTQ_STEPS)
    verify: int = keys.number(32, 1, whole=True)
    cpu: str = keys.choice("x86_64", CPUS)
    depthwise: str = keys.choice("integer", DEPTHWISE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.schemes:
            raise RecipeError("convert needs at least one scheme", "an empty list")
        if {"gptq", "adaround"} <= set(self.ptq):
            raise RecipeError("gptq and adaround both decide how weights are rounded", "both")


@dataclass(frozen=True)
class BenchmarkSpec(StageSpec):
    """Measures all files of this run in pairs, the baseline's float32 file first.

    Attributes:
        targets: Names in `targets.TARGETS` or of its families, or paths of device files.
        runs: Timed rounds.
        threads: Threads of the runtime; null: those of a device's file, else 1.
        eval: Score the files on the targets too, on test samples.
        samples: How many; null: all on hardware, 200 where a target is emulated or simulated.
    """

    stage: ClassVar[str] = "benchmark"
    targets: tuple[str, ...] = keys.words(("host",))
    runs: int = keys.number(50, 1, whole=True)
    threads: int | None = keys.number(None, 1, whole=True)
    eval: bool = keys.flag(False)
    samples: int | None = keys.number(None, 1, whole=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets:
            raise RecipeError("benchmark needs at least one target", "an empty list")
        if self.samples is not None and not self.eval:
            fix = "Add eval: true, or leave samples out"
            raise RecipeError("samples have no meaning without eval", f"{self.samples}", fix)


STAGES: dict[str, type[StageSpec]] = {
    s.stage: s for s in (BaselineSpec, PruneSpec, DistillSpec, QatSpec, ConvertSpec, BenchmarkSpec)
}

_FROZEN = "the files are already written and would not show it"
_MEASURED = "the files are already measured and would not show it"
_BASELINE = "train makes the baseline that every later stage starts from"

# (earlier, later) -> why this order is refused. A pair that is not here is allowed.
REFUSED_ORDER: dict[tuple[str, str], str] = {
    ("train", "train"): _BASELINE + "; raise its epochs instead",
    ("prune", "train"): _BASELINE + "; to recover after pruning use prune's epochs or distill",
    ("distill", "train"): _BASELINE,
    ("qat", "train"): _BASELINE,
    ("qat", "prune"): "what is pruned has to be trained and quantized again; prune first",
    ("qat", "distill"): "float training throws the quantize-aware training away; "
    "set distill: true in the qat stage instead",
    ("qat", "qat"): "the model is quantize-aware already; raise its epochs instead",
    ("convert", "train"): _FROZEN,
    ("convert", "prune"): _FROZEN,
    ("convert", "distill"): _FROZEN,
    ("convert", "qat"): _FROZEN,
    ("benchmark", "train"): _MEASURED,
    ("benchmark", "prune"): _MEASURED,
    ("benchmark", "distill"): _MEASURED,
    ("benchmark", "qat"): _MEASURED,
    ("benchmark", "convert"): _MEASURED,
}

# stage -> (a stage that must stand before it, why)
NEEDED_BEFORE: dict[str, tuple[str, str]] = {
    "benchmark": ("convert", "it measures the files that convert writes"),
}


def check_order(names: tuple[str, ...]) -> None:
    """Refuses stages in an order that loses work.

    Args:
        names: Stage names in recipe order.

    Raises:
        RecipeError: A pair stands in `REFUSED_ORDER`, or a stage of `NEEDED_BEFORE` is missing;
            the message names both stages and the reason.
    """
    for j, later in enumerate(names):
        for i, earlier in enumerate(names[:j]):
            if reason := REFUSED_ORDER.get((earlier, later)):
                raise RecipeError(
                    f"stages.{j} ({later}) must not come after stages.{i} ({earlier}): {reason}"
                )
    for j, later in enumerate(names):
        needed, why = NEEDED_BEFORE.get(later, ("", ""))
        if needed and needed not in names[:j]:
            raise RecipeError(f"stages.{j} ({later}) needs a stage '{needed}' before it: {why}")


def stage_from_dict(value: Any, place: str) -> StageSpec:
    """Builds a stage spec from plain data.

    Args:
        value: A mapping with the key `stage` and the keys of that stage.
        place: Where it stands, for messages ("stages.0").

    Raises:
        RecipeError: No or an unknown `stage`, an unknown key, a bad value.
    """
    if not isinstance(value, Mapping) or "stage" not in value:
        raise RecipeError(
            f"{place} is not a stage", f"{value!r}", "Write it as {stage: prune, sparsity: 0.5}"
        )
    name = value["stage"]
    if not isinstance(name, str) or name not in STAGES:
        raise RecipeError(f"{place}: unknown stage '{name}'", "", did_you_mean(str(name), STAGES))
    place, cls = f"{place} ({name})", STAGES[name]
    for key in value:
        if key != "stage" and key not in cls.key_names():
            raise RecipeError(
                f"{place}: unknown key '{key}'", "", did_you_mean(str(key), cls.key_names())
            )
    try:
        return cls(**{k: v for k, v in value.items() if k != "stage"})
    except TfedgeError as error:
        raise RecipeError(f"{place}: {error.what}", error.found, error.fix) from None
