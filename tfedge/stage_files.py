"""The convert stage: TFLite files of the stages' models, each scored, compared and certified."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfedge import api
from tfedge.errors import ConversionError, TfedgeError
from tfedge.files import write_atomic
from tfedge.progress import track, working
from tfedge.record import Record, from_json, to_json
from tfedge.schemes import SCHEMES
from tfedge.scoring import as_arrays, joined
from tfedge.specs import ConvertSpec
from tfedge.start import Start
from tfedge.task import Task
from tfedge.tflite import Interpreter, TFLiteModel

NOT_MADE = "not made: "


@dataclass(frozen=True)
class StageModel:
    """A model that a stage left behind.

    Attributes:
        record: Its record; `record.stage`, `label`, `params` and `macs` go into the files' rows.
        path: The Keras file.
        quantized: It is quantize-aware.
    """

    record: Record
    path: Path
    quantized: bool


@dataclass(frozen=True)
class FileJob:
    """One file to write.

    Attributes:
        source: The model that it is made from.
        scheme: Name in `SCHEMES`.
    """

    source: StageModel
    scheme: str

    @property
    def stem(self) -> str:
        """File name without suffix."""
        return f"{self.source.record.stage}_{self.scheme}"


def plan_files(models: Sequence[StageModel], spec: ConvertSpec) -> list[FileJob]:
    """Which files a convert stage writes, the baseline's float32 file first.

    Full-integer schemes of the result come from the last model; float schemes from the last one
    before quantize-aware training, because a float file of a quantize-aware model would hold its
    simulation.

    Args:
        models: The stages' models in order; the first is the baseline.
        spec: The stage.
    """
    floats = [m for m in models if not m.quantized] or list(models)
    baseline = ["float32", *spec.baseline] if spec.baseline or spec.stages else []
    jobs = [FileJob(models[0], scheme) for scheme in baseline]
    if spec.stages:
        jobs += [FileJob(m, "float32") for m in floats]
    for scheme in spec.schemes:
        jobs.append(FileJob(models[-1] if SCHEMES[scheme].full_integer else floats[-1], scheme))
    order = [m.record.stage for m in models]
    unique = {job.stem: job for job in jobs}
    return sorted(unique.values(), key=lambda job: order.index(job.source.record.stage))


def asked_for(models: Sequence[StageModel], spec: ConvertSpec) -> set[str]:
    """Stems of the files that `spec.schemes` asks for (the others are for comparison)."""
    alone = replace(spec, baseline=(), stages=False)
    return {job.stem for job in plan_files(models, alone)}


def write_files(
    jobs: Sequence[FileJob], spec: ConvertSpec, start: Start, folder: Path
) -> list[Record]:
    """Writes the files; one that cannot be made is recorded with the reason, the others go on.

    A file that an interrupted run has finished (its row stands beside it) is not made again.

    Args:
        jobs: What to write.
        spec: The stage.
        start: Task (calibration and test data, labels, preprocessing) and custom layers.
        folder: Where the files go, `<stage>_<scheme>.tflite`, each with its row `.json`.

    Returns:
        One row a job; `bytes` is 0 and a note says why where a file could not be made.

    Raises:
        ConversionError: Not a single file could be made.
    """
    rows = [_finished(job, folder) or _write(job, spec, start, folder) for job in jobs]
    if not any(r.bytes for r in rows):
        note = rows[0].notes[-1].removeprefix(NOT_MADE)
        raise ConversionError("no file could be made", f"{rows[0].scheme}: {note}")
    return rows


def _finished(job: FileJob, folder: Path) -> Record | None:
    """The row that an earlier, interrupted run left."""
    row, file = folder / f"{job.stem}.json", folder / f"{job.stem}.tflite"
    if not (row.is_file() and file.is_file()):
        return None
    return from_json(Record, json.loads(row.read_text()))


def _write(job: FileJob, spec: ConvertSpec, start: Start, folder: Path) -> Record:
    """Makes one file and its row; the row is written last."""
    began, source = time.monotonic(), job.source.record
    row = Record(source.stage, source.label, job.scheme, params=source.params, macs=source.macs)
    try:
        with working(f"{source.label}, {job.scheme}: converting"):
            model = start.load(job.source.path)
            task = start.task.for_model(model)
            file = convert_for(model, job.scheme, spec, task)
        _fill(row, file, model, spec, task)
    except TfedgeError as error:
        row.notes.append(f"{NOT_MADE}{error}")
        return row
    row.path, row.seconds = f"{job.stem}.tflite", time.monotonic() - began
    file.save(folder / row.path)
    write_atomic(folder / f"{job.stem}.json", json.dumps(to_json(row)).encode())
    return row


def convert_for(model: Any, scheme: str, spec: ConvertSpec, task: Task) -> TFLiteModel:
    """Converts with the task's calibration samples, labels and preprocessing constants.

    Args:
        model: A tf_keras model, float or quantize-aware.
        scheme: Name in `SCHEMES`.
        spec: Inputs and outputs, batch, number of calibration samples.
        task: Bound to the model.

    Raises:
        ConversionError: The file cannot be made, or does not run.
    """
    from tfedge.quantized import is_quantized, qat_schemes

    aware = is_quantized(model)
    mixed = aware and scheme in qat_schemes(model) and "w8a16" in qat_schemes(model)
    wide = SCHEMES[scheme].activation_bits == 16 or mixed
    # The ranges of a quantize-aware model are its own; with 16 bits the samples bound its sums.
    needs = SCHEMES[scheme].needs_ranges and (wide or not aware)
    samples = task.calibration(spec.calibration) if needs else None
    io = spec.io if SCHEMES[scheme].full_integer else "float"
    facts = {"labels": list(task.labels), "preprocessing": dict(task.preprocessing)}
    return api.convert(
        model,
        scheme,
        calibration=samples,
        io=io,
        batch=spec.batch,
        ptq=spec.ptq if needs and not aware else (),
        metadata={k: v for k, v in facts.items() if v},
        int16={"cpu": spec.cpu, "depthwise": spec.depthwise} if wide else None,
    )


def _fill(row: Record, file: TFLiteModel, model: Any, spec: ConvertSpec, task: Task) -> None:
    """Measures everything about a file but its speed."""
    row.bytes = len(file.data)
    row.certificate = list(file.certificate)
    row.size_by_layer = dict(file.size_by_layer())
    row.metrics = score_file(file, task, f"{row.label}, {row.scheme}: scoring the file")
    samples, _ = task.test_arrays(spec.verify)
    with working(f"{row.label}, {row.scheme}: comparing with the Keras model"):
        row.drift = api.verify(model, file, samples)


def score_file(file: TFLiteModel, task: Task, text: str = "scoring the file") -> dict[str, float]:
    """Scores a file itself on the task's test part.

    Args:
        file: The file.
        task: Bound to the Keras model of the file.
        text: Shown beside the progress bar.

    Returns:
        For example {"accuracy": 0.92}.
    """
    interpreter = Interpreter(file.data, threads=os.cpu_count() or 1)
    batches = task.test_batches(256)
    total = int(batches.cardinality())
    labels: list[Any] = []
    outputs: list[dict[str, np.ndarray]] = []
    for x, y, *_ in track(batches, text, total if total > 0 else None):
        outputs.append(interpreter.predict(as_arrays(x)))
        labels.append(as_arrays(y))
    return task.score(joined(labels), joined(outputs))
