"""What a run starts from: the model and the task; and the checks that come before any training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge import api, stages
from tfedge._keras import keras
from tfedge.bridge import ServingModel
from tfedge.errors import InputError, ModelError
from tfedge.fingerprint import model_fingerprint, task_fingerprint
from tfedge.graph import rebuild, trace
from tfedge.recipe import Recipe
from tfedge.saving import custom_objects_of
from tfedge.specs import BaselineSpec, BenchmarkSpec, DistillSpec, PruneSpec, QatSpec
from tfedge.task import Task, get_task
from tfedge.workdir import digest


@dataclass(frozen=True)
class Start:
    """The beginning of a run.

    Attributes:
        model: A tf_keras model.
        given: The user gave it (else the task built it).
        task: Bound to the model.
        fingerprint: Hash of model and task.
        custom_objects: The model's own layer classes, needed to load saved stages.
    """

    model: Any
    given: bool
    task: Task
    fingerprint: str
    custom_objects: dict[str, Any]

    def load(self, path: Path) -> Any:
        """Loads a model that a stage saved."""
        return api.load_model(path, custom_objects=self.custom_objects)


def make_start(recipe: Recipe, model: Any, task: Any) -> Start:
    """Loads or builds the model and binds the task to it.

    Args:
        recipe: Names model and task where the arguments do not.
        model: A tf_keras model, a path, or None.
        task: A task spec, a Task, or None.

    Raises:
        InputError: There is no model or no task; or they do not fit each other.
        ModelError: A serving-only SavedModel, which cannot be trained or pruned.
    """
    origin = model if model is not None else recipe.model
    spec = task if task is not None else (recipe.task or recipe.data)
    if spec is None:
        raise InputError(
            "there is no data", "neither a data spec nor a task", "Give --data or --task"
        )
    if origin is None:
        loaded, bound = _build(recipe, spec)
    else:
        loaded = api.working(origin)
        if isinstance(loaded, ServingModel):
            raise ModelError(
                "a SavedModel without Keras layers can only be converted, verified and measured",
                str(origin),
                "Supply the Keras model that it was exported from (.keras or .h5)",
            )
        bound = get_task(spec, model=loaded)
    mark = model_fingerprint(origin if isinstance(origin, (str, Path)) else loaded)
    fingerprint = digest([mark, task_fingerprint(spec, bound)])
    return Start(loaded, origin is not None, bound, fingerprint, custom_objects_of(loaded))


def _build(recipe: Recipe, spec: Any) -> tuple[Any, Task]:
    """The task's own reference model, untrained."""
    task = get_task(spec)
    if task.build is None:
        raise InputError("there is no model", f"task '{task.name}' builds none", "Give --model")
    if not isinstance(recipe.stages[0], BaselineSpec):
        raise InputError(
            "there is no trained model", f"recipe '{recipe.name}' has no stage 'train'",
            "Give --model, or begin the recipe with {stage: train}",
        )  # fmt: skip
    keras.utils.set_random_seed(recipe.seed)
    model = api.working(task.build())
    return model, task.for_model(model)


def check_names(recipe: Recipe) -> None:
    """Looks up every name of the recipe that is not part of its grammar.

    Raises:
        TfedgeError: An unknown importance, a target that is unknown or not set up, or a teacher
            that is not there.
    """
    from tfedge.targets import get_target
    from tfedge.targets.device import threads_on

    for spec in recipe.stages:
        if isinstance(spec, PruneSpec):
            stages.check_importance(spec.importance)
        if isinstance(spec, BenchmarkSpec):
            for name in spec.targets:
                place = get_target(name)
                place.prepare(threads_on(place, spec.threads))
        for name in spec.teacher if isinstance(spec, DistillSpec) else ():
            if name != "baseline" and not Path(name).exists():
                raise InputError("there is no such teacher", f"'{name}'", "Check the path")


def rehearse(recipe: Recipe, start: Start) -> None:
    """Carries out the stages without training, so that what cannot work fails at once.

    Args:
        recipe: The recipe.
        start: Model and task; they are not changed.

    Raises:
        TfedgeError: A pattern that matches no layer, a budget that cannot be met, a layer without
            an integer form, a teacher that does not fit.
    """
    model, plans = start.model, []
    for spec in recipe.stages:
        if isinstance(spec, PruneSpec):
            made = stages.prune_at_once(model, stages.without_data(spec))
            model, plans = made.model, [*plans, made.plan]
        elif isinstance(spec, DistillSpec):
            _rehearse_distill(model, plans, spec, start)
        elif isinstance(spec, QatSpec):
            stages.simulated(model, spec)


def _rehearse_distill(model: Any, plans: list[Any], spec: DistillSpec, start: Start) -> None:
    """Makes and compiles the distiller of a stage."""
    student = rebuild(trace(model)) if model is start.model else model
    teachers = [_rehearsed_teacher(name, start) for name in spec.teacher]
    known = plans if spec.teacher == ("baseline",) else []
    distiller = stages.make_distiller(student, teachers, spec, known)
    distiller.compile("sgd", start.task.for_model(student).loss)


def _rehearsed_teacher(name: str, start: Start) -> Any:
    if name == "baseline":
        return start.model
    return name if name.endswith(".tflite") else api.load_model(name, start.custom_objects)
