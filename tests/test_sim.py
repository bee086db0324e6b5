"""The model of Arm cores, device files, and accuracy on targets."""

import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tfedge
from tests import emulator, tflite_files
from tfedge import accuracy
from tfedge.bench import count_ops, measure
from tfedge.cli.main import main
from tfedge.errors import InputError, TargetError
from tfedge.record import Timing, from_json, to_json
from tfedge.report.costs import costs_table
from tfedge.report.table import timing_table
from tfedge.targets import TARGETS, get_target
from tfedge.targets.arm64.costs import Costs, OpCost
from tfedge.targets.arm64.cpus import CPUS
from tfedge.targets.arm64.guest import Mix
from tfedge.targets.sim.cores import CORES, MEMORY
from tfedge.targets.sim.target import SimTarget, estimate
from tfedge.targets.sim.traffic import op_traffic
from tfedge.tflite import Interpreter, flatbuffer

CLASSES = [f.name for f in dataclasses.fields(Mix)]


def random_mix(rng):
    """Counts as a program could have them: products are SIMD, classes are parts of all."""
    loads, stores, other, branches, *products = map(int, rng.integers(0, 10**6, 7))
    neon = other + sum(products)
    total = loads + stores + neon + branches + int(rng.integers(0, 10**6))
    return Mix(total, loads, stores, neon, *products, branches, 16 * (loads + stores))


# ---- the model -----------------------------------------------------------------------------------


def test_cycles_never_fall_when_a_count_grows():
    rng = np.random.default_rng(0)
    for core in CORES.values():
        for _ in range(50):
            mix, traffic = random_mix(rng), int(rng.integers(0, 10**7))
            before = core.bound(mix, traffic, core.clock_ghz).cycles
            for name in CLASSES:
                more = dataclasses.replace(mix, **{name: getattr(mix, name) * 2 + 10**6})
                assert core.bound(more, traffic, core.clock_ghz).cycles >= before
            assert core.bound(mix, 2 * traffic + 10**7, core.clock_ghz).cycles >= before


def test_no_core_does_more_than_it_can_issue_or_fetch():
    width = {"cortex-a53": 2, "cortex-a72": 3, "cortex-a76": 4}
    rng = np.random.default_rng(1)
    for cpu, core in CORES.items():
        for _ in range(50):
            mix, traffic = random_mix(rng), int(rng.integers(0, 10**7))
            found = core.bound(mix, traffic, core.clock_ghz)
            assert found.cycles * (1 + 1e-12) >= mix.instructions / width[cpu] > 0
            seconds = found.cycles / (core.clock_ghz * 1e9)
            assert seconds * core.memory_gb_s * 1e9 >= traffic * (1 - 1e-12)
            # Two together take no longer than one after the other, and no less than either.
            other = random_mix(rng)
            both = core.bound(mix + other, traffic, core.clock_ghz).cycles
            alone = core.bound(other, 0, core.clock_ghz).cycles
            assert max(found.cycles, alone) <= both <= (found.cycles + alone) * (1 + 1e-12)


def test_peaks_are_those_of_the_cores():
    def per_cycle(cpu, **counts):
        mix = Mix(instructions=counts["neon"], **counts)
        found = CORES[cpu].bound(mix, 0, 1.0)
        return counts["neon"] / found.cycles, found.by

    fmla, smlal, dot = ({"neon": 1200, name: 1200} for name in ("fmla", "smlal", "dot"))
    assert [per_cycle(c, **fmla)[0] for c in CORES] == [1, 1, 2]
    assert [per_cycle(c, **smlal)[0] for c in CORES] == [1, 1, 1]
    assert per_cycle("cortex-a76", **dot) == (2, "V0 and V1")
    assert per_cycle("cortex-a72", neon=1200)[0] == 2
    for core in CORES.values():
        found = core.bound(Mix(100), 10**9, core.clock_ghz)
        assert found.by == MEMORY
        assert found.cycles / core.clock_ghz == pytest.approx(1e9 / core.memory_gb_s)


def test_the_whole_is_its_ops_and_what_is_outside():
    rng = np.random.default_rng(2)
    data = tflite_files.file("two", "int8")
    rows = tuple(OpCost(i, "CONV_2D", "", "k", random_mix(rng)) for i in range(3))
    counted = Costs("arm64:x", Mix(1), rows, random_mix(rng))
    for cpu, core in CORES.items():
        found = estimate(counted, data, core, f"sim:{cpu}")
        assert found == estimate(counted, data, core, f"sim:{cpu}")
        assert found.ms == pytest.approx(sum(r.ms for r in found.ops) + found.rest_ms, rel=1e-12)
        assert (found.target, found.source) == (f"sim:{cpu}", "simulated")
        assert all(row.bound for row in found.ops)
        fast = estimate(counted, data, dataclasses.replace(core, clock_ghz=9.0), "x")
        # A file that fits the cache follows the clock.
        assert fast.ms == pytest.approx(found.ms * core.clock_ghz / 9.0)


def test_memory_moves_weights_only_where_the_file_exceeds_the_cache():
    data = tflite_files.file("large")
    model = flatbuffer.read(data)
    stored = sum(len(b.data) for b in model.buffers[1:] if b.data is not None)
    assert set(op_traffic(data, 10**9).values()) == {0}
    image = 4 * (48 * 48 * (8 + 64) + 46 * 46 * 32)
    moved = op_traffic(data, 1000)
    assert list(moved) == [0, 1]
    weights = 4 * (9 * 8 * 64 + 64 + 9 * 64 * 32 + 32)
    assert sum(moved.values()) == weights + image + 4 * 48 * 48 * 64
    # Activations of each op fit beside its weights, but not all weights: only these move.
    small = op_traffic(data, 4 * (48 * 48 * 64 + 46 * 46 * 32) + 73728 + 200)
    assert sum(small.values()) in (0, weights) and weights <= stored


def test_every_model_is_a_target_on_a_core_that_is_emulated():
    assert {f"sim:{cpu}" for cpu in CORES} == {n for n in TARGETS if n.startswith("sim:")}
    assert set(CORES) <= set(CPUS)
    with pytest.raises(TargetError, match="no model of this core.*cortex-a76"):
        SimTarget("cortex-a73")
    with pytest.raises(InputError, match="clock"):
        SimTarget("cortex-a72", clock_ghz=-1.0)
    with pytest.raises(InputError, match="sim:cortex-a72 counts one thread"):
        SimTarget("cortex-a72").prepare(2)


@pytest.fixture(scope="module")
def real():
    emulator.needed()


@pytest.mark.slow
def test_estimates_repeat_and_are_told_from_measurements(real):
    files = [tflite_files.file("image", k) for k in ("float", "int8")]
    first, second = measure(files, target="sim:cortex-a72", runs=2)
    assert measure(files[1], target="sim:cortex-a72", runs=1)[0].cycles == second.cycles
    (counted,) = measure(files[1], target="arm64:cortex-a72", runs=1)
    assert counted.instructions == second.instructions <= 3 * second.cycles
    assert second.p50_ms == pytest.approx(second.cycles / 1.5e6)
    assert second.ratio_p50 == second.ratio_min == second.cycles / first.cycles
    (costs,) = count_ops(files[1], "sim:cortex-a72")["model 0"]
    assert costs.ms == pytest.approx(second.p50_ms)
    times = get_target("sim:cortex-a72").profile(files[1])
    inside = sum(times.ops.values()) + times.delegated_us
    assert inside == pytest.approx(1e3 * (costs.ms - costs.rest_ms))
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(timing_table([first, second]))
    console.print(costs_table("image", costs))
    text = console.export_text()
    assert "simulated" in text and "an estimate, not a measurement" in text
    assert "p90" not in text and "Raspberry Pi 4 at 1.5 GHz" in text and "bound" in text


# ---- accuracy ------------------------------------------------------------------------------------


def task(count=64):
    """Labels that the int8 file itself gives, a quarter of them spoilt: about 75 % are right."""
    data = tflite_files.file("image", "int8")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, 8, 8, 3)).astype("float32")
    y = Interpreter(data).predict(x)["p"].argmax(1)
    y[: count // 4] = (y[: count // 4] + 1) % 3
    q = np.zeros(count, np.int64)
    return {"train": (x, {"p": y, "q": q}), "test": (x, {"p": y, "q": q}), "kind": "sparse"}


def as_task(count=64):
    from tfedge.task import Task

    return Task(**task(count))


def test_scores_on_the_host_are_the_files_own():
    files = [tflite_files.file("image", "int8")]
    (timing,) = tfedge.benchmark(files, runs=1, task=as_task())
    score = timing.score
    assert (score.samples, score.of, score.error) == (64, 64, "")
    assert score.scores == score.host and score.scores["p_accuracy"] == 0.75
    assert score.standard_error["p_accuracy"] == pytest.approx(math.sqrt(0.75 * 0.25 / 64))
    assert from_json(Timing, json.loads(json.dumps(to_json(timing)))) == timing
    (some,) = tfedge.benchmark(files, runs=1, task=as_task(), samples=40)
    (again,) = tfedge.benchmark(files, runs=1, task=as_task(), samples=40)
    assert some.score == again.score and (some.score.samples, some.score.of) == (40, 64)
    # The spoilt quarter stands first: a sample at random has some of both.
    assert 0.5 < some.score.scores["p_accuracy"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["arm64:cortex-a53", "sim:cortex-a76"])
def test_accuracy_of_integer_files_is_the_hosts(real, target):
    files = [tflite_files.file("image", "int8")]
    (timing,) = tfedge.benchmark(files, target=target, runs=1, task=as_task(), samples=50)
    assert timing.score.scores == timing.score.host and timing.score.samples == 50
    (default,) = accuracy.with_scores([timing], accuracy.tests_of(files, as_task(300)), target)
    assert (default.score.samples, default.score.of) == (accuracy.SAMPLES, 300)


def test_what_cannot_run_files_keeps_the_other_scores(monkeypatch):
    class Blind:
        name, source, place = "blind", "simulated", None

        def prepare(self, threads=1):
            pass

        def time(self, models, runs, threads):
            return [Timing(n, self.name, self.source, threads, runs, 1.0, 1.0) for n in models]

        def run(self, data, inputs):
            raise TargetError("blind estimates and runs no files", fix="Use another")

    monkeypatch.setitem(TARGETS, "blind", Blind)
    file = tflite_files.file("image", "int8")
    host, blind = tfedge.benchmark(file, target=["host", "blind"], runs=1, task=as_task())
    assert host.score.scores and not host.score.error
    assert blind.score.error.startswith("blind estimates and runs no files")
    assert not blind.score.scores and blind.p50_ms == 1.0


def test_wrong_tasks_are_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr("tfedge.bench.measure", lambda *a, **k: pytest.fail("measured"))
    file = tflite_files.file("image", "int8")
    bad = task()
    bad["test"] = (np.zeros((4, 9, 9, 3), "float32"), bad["test"][1])
    from tfedge.task import Task

    with pytest.raises(InputError):
        tfedge.benchmark(file, task=Task(**bad))
    with pytest.raises(InputError, match="unknown task"):
        tfedge.benchmark(file, task="fashion")
    with pytest.raises(InputError, match="samples must be a whole number"):
        tfedge.benchmark(file, task=as_task(), samples=0)
    with pytest.raises(InputError, match="samples have no meaning without a task"):
        tfedge.benchmark(file, samples=3)


def test_eval_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.tflite").write_bytes(tflite_files.file("large", "int8"))
    Path("image.tflite").write_bytes(tflite_files.file("image", "int8"))
    for words, expected in (
        (["--eval"], "exactly one of --data and --task"),
        (["--data=x.npz"], "--data has no meaning without --eval"),
        (["--samples=3"], "--samples has no meaning without --eval"),
    ):
        assert main(["benchmark", "image.tflite", *words]) == 1
        assert expected in capsys.readouterr().err
    given = task()
    x, y = given["test"]
    Path("mine.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    d = np.load('d.npz'); y = {k: d[k] for k in 'pq'}\n"
        "    return {'train': (d['x'], y), 'test': (d['x'], y), 'kind': 'sparse'}\n"
    )
    np.savez("d.npz", x=x, **y)
    words = ["benchmark", "image.tflite", "--eval", "--task=mine.py:data", "--runs=1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "75.00 %" in out and "64 of 64" in out and "standard error" in out
    # The host beside itself has no difference.
    assert "+0.00" not in out
    assert main([*words, "--json=-"]) == 0
    (timing,) = json.loads(capsys.readouterr().out)["timings"]
    assert timing["score"]["scores"]["p_accuracy"] == 0.75
