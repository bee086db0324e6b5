"""What distillation recovers of what pruning lost, method by method, and what a step costs.

    python benchmarks/distill.py [--cifar10 FOLDER] [--extra] [--only DATA/METHOD/SEED] [--force]

A kept ResNet-8 (benchmarks/baselines.py) is pruned at once to 25 % of its MACs and fine-tuned for
the same number of steps by each method, over three seeds (order and augmentation of the data). Rows
DATA/METHOD/SEED hold accuracies; rows DATA/cost/0 hold what a step costs over plain training of the
student, measured in turn in one process. The summary gives mean, spread (standard deviation over
the seeds) and the paired differences to fine-tuning without a teacher; it and a plot are also
written to results/. --extra adds each temperature and each feature loss alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import image_data
import rows

DATA = {"fashion_mnist": "resnet8", "cifar10": "resnet8_cifar10"}
# A short recovery, chosen on the validation part as rate, T and alpha were: with 6 epochs of
# Fashion-MNIST (one seed) no method was better there than none.
EPOCHS = {"fashion_mnist": 2, "cifar10": 5}
SEEDS = (0, 1, 2)
# Of T = 1, 2 and 4 the lowest was the best: so small a student cannot follow the teacher's small
# probabilities.
BATCH, RATE, MACS = 128, 5e-3, 0.25
PLAIN = "none"
CURVE = {"name": "cosine", "start": 2.0, "end": 1.0}
SOFT = {"temperature": 1.0, "alpha": 0.9}
# Arguments of the Distiller; features that take a pruning plan get it.
METHODS: dict[str, dict[str, Any] | None] = {
    PLAIN: None,
    "soft": SOFT,
    "temperature": SOFT | {"temperature": CURVE},
    "features": SOFT | {"features": ["fitnet"]},
    "all": SOFT | {"temperature": CURVE, "features": ["fitnet"]},
}
EXTRA: dict[str, dict[str, Any]] = {
    "T=2, alpha=0.7": {},
    **{
        f"T {n}": SOFT | {"temperature": n}
        for n in ("linear", "step", "entropy", "gap", "curriculum")
    },
    **{
        n: SOFT | {"features": [n]} for n in ("attention", "similarity", "relational", "channel_kl")
    },
}
STEPS = "TFEDGE_BENCH_STEPS"
COST_ROUNDS, COST_STEPS = 7, 25


def measure(row: str) -> dict[str, Any]:
    """The columns of one row."""
    data, method, seed = row.split("/")
    return cost(data) if method == "cost" else tune(data, method, int(seed))


def begin(data: str) -> tuple[Any, Any, Any]:
    """The baseline, what pruning made of it (model, plan and report), and the task."""
    from baselines import load_baseline

    from tfedge.prune import shrink

    steps = int(os.environ.get(STEPS, 0))
    if steps and not _kept(DATA[data]):
        baseline = _untrained(data)
    else:
        baseline = load_baseline(DATA[data])
    task = image_data.task(data, baseline)
    if steps:
        task = image_data.part(task, steps * BATCH, 256)
    return baseline, shrink(baseline, None, round_to=1, target_macs=MACS), task


def _kept(name: str) -> bool:
    from baselines import FOLDER

    return (FOLDER / f"{name}.npz").exists()


def _untrained(data: str) -> Any:
    """A network to try the script out on, where no trained one is kept."""
    from tfedge.models import resnet8

    return resnet8(image_data.SHAPES[data])


def tune(data: str, method: str, seed: int) -> dict[str, Any]:
    """Fine-tunes the pruned network; accuracies before and after."""
    from tfedge import train

    baseline, pruned, task = begin(data)
    before = {
        "baseline": train.evaluate(baseline, task)["accuracy"],
        "pruned": train.evaluate(pruned.model, task)["accuracy"],
    }
    epochs = 1 if os.environ.get(STEPS) else EPOCHS[data]
    spec = train.TrainSpec(
        epochs=epochs, batch_size=BATCH, learning_rate=RATE, seed=seed, validate=False
    )
    learner = learner_of(method, pruned, baseline)
    began = time.monotonic()
    history = train.fit(learner, task, spec)
    took = time.monotonic() - began
    return {
        "accuracy": train.evaluate(pruned.model, task)["accuracy"],
        "validation": train.evaluate(pruned.model, task, part="validation")["accuracy"],
        **before,
        "MACs left": round(pruned.report.macs[1] / pruned.report.macs[0], 4),
        "epochs": epochs,
        "steps": epochs * task.for_model(baseline).steps(BATCH),
        "seconds": round(took, 1),
        "loss": round(history["loss"][-1], 4),
    }


def learner_of(method: str, pruned: Any, teacher: Any) -> Any:
    """What is fitted: the pruned network, or a Distiller of it."""
    from tfedge.distill import FEATURES, Distiller

    given = {**METHODS, **EXTRA}[method]
    if given is None:
        return pruned.model
    options = dict(given)
    options["features"] = [
        {"name": n, "plan": pruned.plan} if FEATURES[n].same_channels else n
        for n in options.get("features", ())
    ]
    return Distiller(pruned.model, teacher, **options)


def cost(data: str) -> dict[str, Any]:
    """Time of a training step by method, over that of the student alone.

    Of the clock the fastest round of each counts, of the CPU's time (all threads) the median: the
    latter says the same on a busy machine.
    """
    from tfedge import train
    from tfedge.distill import Distiller, TeacherCache
    from tfedge.prune import shrink

    baseline, pruned, task = begin(data)
    steps = int(os.environ.get(STEPS, COST_STEPS))
    pool = in_memory(task, steps * BATCH)
    spec = train.TrainSpec(epochs=COST_ROUNDS, batch_size=BATCH, learning_rate=RATE)
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = TeacherCache.write(Path(folder) / "c", pruned.model, baseline, pool, BATCH)
        students = [shrink(baseline, plan=pruned.plan) for _ in range(4)]
        learners = {
            "student alone": students[0].model,
            "soft": Distiller(students[1].model, baseline),
            "cached": Distiller(students[2].model, cache),
            "all": learner_of("all", students[3], baseline),
        }
        for learner in learners.values():
            train.compile_model(learner, pool, spec)
        for number in range(COST_ROUNDS + 1):
            for name, learner in learners.items():
                batches = pool.for_model(baseline).train_batches(BATCH, number)
                began = time.perf_counter(), time.process_time()
                learner.fit(batches, epochs=1, verbose=0)
                if number:  # the first round compiles
                    wall.setdefault(name, []).append(time.perf_counter() - began[0])
                    cpu.setdefault(name, []).append(time.process_time() - began[1])
    alone = min(wall["student alone"]), median(cpu["student alone"])
    columns: dict[str, Any] = {"ms a step": round(1e3 * alone[0] / steps, 2), "steps": steps}
    for name in learners:
        columns[name] = round(min(wall[name]) / alone[0], 3)
        columns[f"{name} CPU"] = round(median(cpu[name]) / alone[1], 3)
    return columns


def in_memory(task: Any, count: int) -> Any:
    """Training samples in memory, without augmentation: all methods see the same, cached or not."""
    from tfedge.task import Task

    x, y = image_data.part(task, count, 256).train.arrays()
    samples = (next(iter(x.values())), y)
    return Task(samples, samples, kind="sparse", validation_split=0.0)


def summary(table: dict[str, Any], data: str) -> list[dict[str, Any]]:
    """One line a method: mean, spread, paired differences, what is recovered, and the verdict."""
    runs: dict[str, dict[int, float]] = {}
    for row, columns in table.items():
        name, method, seed = row.split("/")
        if name == data and method != "cost" and "accuracy" in columns:
            runs.setdefault(method, {})[int(seed)] = 100 * columns["accuracy"]
            whole = 100 * columns["baseline"]
    plain = runs.get(PLAIN, {})
    lines = []
    for method, found in runs.items():
        pairs = [v - plain[s] for s, v in found.items() if s in plain]
        line: dict[str, Any] = {"data": data, "method": method, "runs": len(found)}
        line["mean"], line["spread"] = mean(found.values()), _spread(list(found.values()))
        if method != PLAIN and pairs:
            line["difference"], line["its spread"] = mean(pairs), _spread(pairs)
            lost = whole - mean(plain.values())
            if lost > 0:
                line["recovered"] = mean(pairs) / lost
            line["verdict"] = _verdict(pairs, max(_spread(list(plain.values())), line["spread"]))
        lines.append(line)
    return lines


def _spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else float("nan")


def _verdict(pairs: list[float], spread: float) -> str:
    """Better or worse only where every seed says so and the mean difference beats the spread."""
    if len(pairs) > 1 and min(pairs) > 0 and mean(pairs) > spread:
        return "better"
    if len(pairs) > 1 and max(pairs) < 0 and -mean(pairs) > spread:
        return "worse"
    return "no clear difference"


def markdown(lines: list[dict[str, Any]]) -> str:
    """The summary as a table."""
    keys = ["data", "method", "runs", "mean", "spread", "difference", "its spread", "recovered"]
    keys.append("verdict")
    out = ["| " + " | ".join(keys) + " |", "|---" * len(keys) + "|"]
    for line in lines:
        cells = [_cell(k, line.get(k, "")) for k in keys]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def _cell(key: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if key == "recovered":
        return f"{value:.0%}"
    return f"{value:+.2f}" if key == "difference" else f"{value:.2f}"


def plot(table: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """An SVG: accuracy of every run by method, its mean as a bar, one panel a data set."""
    height, left, width, step = 60, 130, 420, 22
    parts: list[str] = []
    for data in dict.fromkeys(line["data"] for line in lines):
        here = [line for line in lines if line["data"] == data]
        runs = {k: 100 * v["accuracy"] for k, v in table.items() if _is_run(k, v, data)}
        low, high = min(runs.values()), max(runs.values())
        scale = width / max(high - low, 1e-6)
        top = height
        parts.append(f'<text x="10" y="{top - 14}" font-weight="bold">{data}, accuracy in %</text>')
        for line in here:
            y = height
            parts.append(f'<text x="10" y="{y + 4}">{line["method"]}</text>')
            x = left + (line["mean"] - low) * scale
            parts.append(f'<path d="M{x:.1f} {y - 8}v16" stroke="#D55E00" stroke-width="3"/>')
            for row, value in runs.items():
                if row.split("/")[1] == line["method"]:
                    x = left + (value - low) * scale
                    parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="#0072B2"/>')
            height += step
        for value, x in ((low, left), (high, left + width)):
            parts.append(f'<text x="{x}" y="{height + 6}" text-anchor="middle">{value:.2f}</text>')
        height += 70
    size = f'width="{left + width + 40}" height="{height - 40}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _is_run(row: str, columns: dict[str, Any], data: str) -> bool:
    return row.startswith(f"{data}/") and "/cost/" not in row and "accuracy" in columns


def report(path: Path) -> None:
    """Prints the summary of a result file, and writes it and the plot beside it."""
    table = json.loads(path.read_text()) if path.exists() else {}
    lines = [line for data in DATA for line in summary(table, data)]
    if not lines:
        return
    text = markdown(lines)
    print("\n" + text)
    path.with_suffix(".md").write_text(text + "\n")
    path.with_suffix(".svg").write_text(plot(table, lines))


def main() -> None:
    """Measures what is missing and prints the summary."""
    image_data.take_flag()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--extra", action="store_true")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    if own.steps:
        os.environ[STEPS] = str(own.steps)
    name = "distill_tried" if os.environ.get(STEPS) else "distill"
    known = [d for d in DATA if image_data.is_there(d)]
    methods = [*METHODS, *EXTRA]
    every = [f"{d}/{m}/{s}" for s in SEEDS for d in known for m in methods]
    every += [f"{d}/cost/0" for d in known]
    wanted = [r for r in every if own.extra or r.split("/")[1] not in EXTRA]
    asked = any(a.startswith("--only") or a.startswith("--row") for a in rest)
    rows.main(name, every if asked else wanted, measure, __doc__ or "")
    if not any(a.startswith("--row") for a in rest):
        report(rows.RESULTS / f"{name}.json")


if __name__ == "__main__":
    main()
