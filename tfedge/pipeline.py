"""`compress`: a recipe in, stage after stage, records and a report out."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfedge import api, bench, stages, train
from tfedge import recipe as recipes
from tfedge._version import __version__
from tfedge.accuracy import tests_of, with_scores
from tfedge.errors import InputError
from tfedge.facts import run_facts
from tfedge.files import replacing, write_atomic
from tfedge.profile import profile
from tfedge.progress import console, working
from tfedge.prune import PruningPlan
from tfedge.quantized import is_quantized
from tfedge.recipe import Recipe
from tfedge.record import Record, Timing, from_json, to_json, write_jsonl
from tfedge.report import write_report
from tfedge.saving import save_model
from tfedge.specs import (
    BaselineSpec,
    BenchmarkSpec,
    ConvertSpec,
    DistillSpec,
    PruneSpec,
    QatSpec,
    StageSpec,
)
from tfedge.stage_files import StageModel, asked_for, plan_files, write_files
from tfedge.start import Start, check_names, make_start, rehearse
from tfedge.targets import device
from tfedge.workdir import StageFolder, digest, locked, open_workdir

# What a stage adds to the label of the model.
WORDS = {"prune": "pruned", "distill": "distilled", "qat": "QAT"}
RECORD = "record.json"
TIMINGS = "timings.json"


def compress(
    recipe: Recipe | str | Path | Mapping[str, Any],
    workdir: str | Path,
    model: Any = None,
    data: Any = None,
    task: Any = None,
    overrides: Sequence[str] = (),
) -> list[Record]:
    """Runs a recipe.

    Every stage leaves `workdir/NN_stage/`; the result is `report.html`, `records.jsonl` and
    `recipe.yaml` beside them. A stage that was finished before for the same recipe, inputs, data
    and seed is skipped; an interrupted one goes on at its last finished epoch or file.

    The model is, in this order: `model`, the recipe's `model`, the one that the task builds. A
    recipe's `train` stage trains the last of these; a model that was given is taken as it is
    (unless the stage says `retrain: true`).

    A scheme that cannot be written does not stop the others: its record has `bytes` 0 and a note
    that begins with "not made"; the next run tries it again.

    Args:
        recipe: A Recipe, the path of one, or its plain data.
        workdir: Made where it does not exist.
        model: A tf_keras model or the path of one.
        data: Data spec (see `task.get_task`); replaces the recipe's `data` and `task`.
        task: "module:function", or a Task; replaces the recipe's `data` and `task`.
        overrides: "stages.0.sparsity=0.6" and the like.

    Returns:
        The records: for each stage its Keras model and then its files.

    Raises:
        RecipeError: The recipe is wrong; nothing was done.
        TfedgeError: Whatever a stage refuses. All that can be checked without training is checked
            before the first stage.
        KeyboardInterrupt: Interrupted; the work directory is consistent, the next run goes on.
    """
    if data is not None and task is not None:
        raise InputError("give either data or a task", "both", "Leave one of them out")
    parsed = recipes.from_dict(recipes.with_overrides(_plain(recipe), overrides))
    spec = data if data is not None else task
    if isinstance(spec, str):
        parsed = dataclasses.replace(parsed, data=data, task=task)
    check_names(parsed)
    root = open_workdir(workdir)
    with locked(root):
        with working("loading model and data"):
            start = make_start(parsed, model, spec)
        return _Run(parsed, root, start).run()


def _plain(recipe: Any) -> Any:
    """The recipe as plain data, checked later."""
    if isinstance(recipe, Recipe):
        return recipes.to_dict(recipe)
    return recipes.read_file(recipe) if isinstance(recipe, (str, Path)) else recipe


class _Run:
    """One run of a recipe in a work directory.

    Args:
        recipe: The recipe.
        root: The work directory.
        start: Model and task.
    """

    def __init__(self, recipe: Recipe, root: Path, start: Start) -> None:
        self.recipe, self.root, self.start = recipe, root, start
        self.rehearsed = False
        # Outputs of the finished stages: what a later stage's key rests on.
        self.outputs: list[dict[str, str]] = []
        self.models: list[StageModel] = []
        self.files: list[Record] = []

    def run(self) -> list[Record]:
        """Runs or skips every stage and writes the report."""
        specs = self.recipe.stages
        if not isinstance(specs[0], BaselineSpec):
            self._stage(0, "baseline", None)
        first = 0 if isinstance(specs[0], BaselineSpec) else 1
        for number, spec in enumerate(specs, first):
            self._stage(number, "baseline" if number == 0 else spec.stage, spec)
        return self._report()

    def _stage(self, number: int, name: str, spec: StageSpec | None) -> None:
        """Skips one stage or carries it out, and takes up what it left."""
        folder = StageFolder(self.root, f"{number:02d}_{name}")
        depends: dict[str, Any] = {
            "spec": spec.hash() if spec else "",
            "seed": self.recipe.seed,
            "start": self.start.fingerprint,
            "before": self.outputs,
            "version": __version__,
        }
        if isinstance(spec, BenchmarkSpec):
            depends["devices"] = device.texts(spec.targets)
        key = digest(depends)
        files = folder.outputs(key)
        if files is not None and self._incomplete(folder, spec):
            # What could not be written then may work now (another version of a library).
            folder.reopen(key)
            files = None
        if files is not None:
            _say(f"{folder.name}: done before, skipped")
        else:
            if (folder.path / RECORD).exists():
                _say(f"{folder.name}: its settings, the model or the data changed; done again")
            self._rehearse()
            _say(f"{folder.name}: {_summary(spec)}")
            self._work(folder, key, spec)
            files = folder.finish(key)
        self.outputs.append(files)
        self._take_up(folder, spec)

    def _incomplete(self, folder: StageFolder, spec: StageSpec | None) -> bool:
        """True for a convert stage in which a file could not be made."""
        if not isinstance(spec, ConvertSpec):
            return False
        return any(not row["bytes"] for row in json.loads((folder.path / RECORD).read_text()))

    def _rehearse(self) -> None:
        if not self.rehearsed:
            with working("checking the recipe against the model"):
                rehearse(self.recipe, self.start)
            self.rehearsed = True

    def _work(self, folder: StageFolder, key: str, spec: StageSpec | None) -> None:
        """Carries out one stage in its partial folder."""
        target, scratch = folder.begin(key)
        if isinstance(spec, ConvertSpec):
            self._convert(target, spec)
        elif isinstance(spec, BenchmarkSpec):
            self._benchmark(target, spec)
        else:
            self._make(folder.name, target, spec, scratch / "checkpoints")

    def _make(self, name: str, target: Path, spec: StageSpec | None, checkpoints: Path) -> None:
        """A stage that makes a model."""
        began = time.monotonic()
        training = stages.Training(self.start.task, self.recipe.seed, checkpoints)
        made = self._made(spec, training)
        quantized = is_quantized(made.model)
        file = f"model{'.h5' if quantized else '.keras'}"
        save_model(made.model, target / file, quantized=quantized)
        if made.plan is not None:
            with replacing(target / "plan.json") as new:
                made.plan.save(new)
        params, macs, notes = self._costs(made.model, quantized)
        record = Record(
            stage=name,
            label=self._label(spec),
            path=file,
            metrics=train.evaluate(made.model, self.start.task),
            params=params,
            macs=macs,
            seconds=time.monotonic() - began,
            notes=[*made.notes, *notes],
        )
        _write_json(target / RECORD, record)
        if made.history:
            _write_json(target / "history.json", made.history)

    def _costs(self, model: Any, quantized: bool) -> tuple[int, int, list[str]]:
        """Parameters, MACs, and what they leave out; a simulation costs what its model does."""
        if quantized and self.models:
            before = self.models[-1].record
            return before.params, before.macs, []
        costs = profile(model)
        return costs.params, costs.macs, _uncounted(costs)

    def _made(self, spec: StageSpec | None, training: stages.Training) -> stages.Made:
        """The model that a stage makes of the one before."""
        if spec is None or isinstance(spec, BaselineSpec):
            return self._baseline(spec, training)
        model = self.start.load(self.models[-1].path)
        if isinstance(spec, PruneSpec):
            return stages.prune(model, spec, training)
        if isinstance(spec, DistillSpec):
            teachers = [self._teacher(name) for name in spec.teacher]
            return stages.distill(model, teachers, spec, training, self._plans(spec))
        if isinstance(spec, QatSpec):
            teacher = self._teacher("baseline") if spec.distill else None
            return stages.quantize(model, spec, training, teacher)
        raise TypeError(f"no way to carry out {type(spec).__name__}")

    def _baseline(self, spec: BaselineSpec | None, training: stages.Training) -> stages.Made:
        if spec is None or (self.start.given and not spec.retrain):
            if spec is not None:
                _say("the model that was given is the baseline: not trained (retrain: true does)")
            return stages.Made(self.start.model)
        return stages.make_baseline(self.start.model, spec, training)

    def _teacher(self, name: str) -> Any:
        if name == "baseline":
            return self.start.load(self.models[0].path)
        if name.endswith(".tflite"):
            return name
        return api.load_model(name, custom_objects=self.start.custom_objects)

    def _plans(self, spec: DistillSpec) -> list[PruningPlan]:
        """The plans that made the model of the baseline, where that is the one teacher."""
        if spec.teacher != ("baseline",):
            return []
        files = [m.path.parent / "plan.json" for m in self.models]
        return [PruningPlan.load(f) for f in files if f.is_file()]

    def _label(self, spec: StageSpec | None) -> str:
        if not self.models:
            return "baseline"
        before = self.models[-1].record.label
        word = WORDS[spec.stage] if spec else ""
        return word if before == "baseline" else f"{before} + {word}"

    def _convert(self, target: Path, spec: ConvertSpec) -> None:
        jobs = plan_files(self.models, spec)
        rows = write_files(jobs, spec, self.start, target)
        _write_json(target / RECORD, rows)

    def _benchmark(self, target: Path, spec: BenchmarkSpec) -> None:
        """Measures all files in pairs with the first one, the baseline in float32."""
        rows = [r for r in self.files if r.bytes]
        timings: dict[str, list[Timing]] = {r.path: [] for r in rows}
        files = [self.root / r.path for r in rows]
        tests = tests_of(files, self.start.task, spec.samples) if spec.eval else {}
        for name in spec.targets:
            with working(f"measuring {len(rows)} files on {name}"):
                found = bench.measure(files, target=name, runs=spec.runs, threads=spec.threads)
            if spec.eval:
                found = with_scores(found, tests, name)
            for row, timing in zip(rows, found, strict=True):
                timings[row.path].append(timing)
        _write_json(target / TIMINGS, timings)

    def _take_up(self, folder: StageFolder, spec: StageSpec | None) -> None:
        """Reads what a finished stage left."""
        if isinstance(spec, ConvertSpec):
            for value in json.loads((folder.path / RECORD).read_text()):
                row = from_json(Record, value)
                row.path = f"{folder.name}/{row.path}" if row.path else ""
                self.files.append(row)
        elif isinstance(spec, BenchmarkSpec):
            value = json.loads((folder.path / TIMINGS).read_text())
            for row in self.files:
                row.timing += [from_json(Timing, t) for t in value.get(row.path, ())]
        else:
            record = from_json(Record, json.loads((folder.path / RECORD).read_text()))
            path = folder.path / record.path
            record.path = f"{folder.name}/{record.path}"
            self.models.append(StageModel(record, path, path.suffix == ".h5"))

    def _report(self) -> list[Record]:
        """Writes records, recipe and report; returns the records, each model before its files."""
        records: list[Record] = []
        for model in self.models:
            own = [r for r in self.files if r.stage == model.record.stage]
            records += [model.record, *own]
        with replacing(self.root / "records.jsonl") as new:
            write_jsonl(new, records)
        write_atomic(self.root / "recipe.yaml", recipes.dump(self.recipe).encode())
        facts = run_facts(self.recipe, self.start.task.name)
        with working("writing the report"):
            write_report(records, self.root / "report.html", title=self.recipe.name, facts=facts)
        return records


def missing_files(recipe: Recipe, records: Sequence[Record]) -> list[Record]:
    """Rows of files that the recipe's `schemes` asked for and that could not be made.

    Args:
        recipe: The recipe.
        records: What `compress` returned.
    """
    keras_rows = [r for r in records if r.scheme == "keras"]
    models = [StageModel(r, Path(r.path), r.path.endswith(".h5")) for r in keras_rows]
    converts = [s for s in recipe.stages if isinstance(s, ConvertSpec)]
    wanted = {stem for spec in converts for stem in asked_for(models, spec)}
    rows = [r for r in records if r.scheme != "keras" and not r.bytes]
    return [r for r in rows if f"{r.stage}_{r.scheme}" in wanted]


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(to_json(value), indent=1, allow_nan=False).encode())


def _say(text: str) -> None:
    console().print(text, markup=False, highlight=False)


def _summary(spec: StageSpec | None) -> str:
    if spec is None:
        return "the model as it was given"
    keys = {k: v for k, v in spec.to_dict().items() if k != "stage"}
    return ", ".join(f"{k} {v}" for k, v in keys.items()) or "with the default settings"


def _uncounted(costs: Any) -> list[str]:
    if not costs.uncounted:
        return []
    return [f"MACs do not count these layers (no formula): {', '.join(costs.uncounted)}"]
