"""Tables of a terminal at any width: whole numbers, names that differ, no line too long."""

import io
import itertools
import re
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.report_records import make
from tfedge.cli.cmd_allocate import show_allocation
from tfedge.record import OutputMatch, Score, Timing
from tfedge.report import plain_table, record_table, timing_table
from tfedge.report.costs import costs_table, matches_table
from tfedge.report.scores import scores_table
from tfedge.report.shortening import least_width, shorten
from tfedge.report.table import make_console
from tfedge.targets.arm64.costs import Costs, OpCost
from tfedge.targets.arm64.guest import Mix
from tfedge.targets.op_table import OpRow, OpTable

WIDTHS = (60, 80, 100, 120, 200)
NUMBER = re.compile(r"[<>+(-]*\d[\d,.]*(e[+-]?\d+)?[%x]?[,;.)]*")
NAMES = [f"resnet8_fashion_mnist_pruned_50_distilled_{k}" for k in ("float32", "w8a8", "w8a16")]


def times(target="host", source="measured", **more):
    return [
        Timing(
            name, target, source, 1, 50, 0.0123 * i, 13.3 * i, 14567.3, init_ms=12.3,
            peak_mb=133.0, bytes=123_456, delegated_ops=12, total_ops=13, partitions=2,
            ratio_p50=float(i), load=3.8, cpus=1, **more,
        )
        for i, name in enumerate(NAMES, 1)
    ]  # fmt: skip


def npu():
    memory = {"sram_peak_bytes": 120_000, "dram_traffic_bytes": 987_654, "flash_traffic_bytes": 77}
    return times("ethosu:u85-256", "simulated", delegate="NPU", cycles=1_234_567.0, **memory)


def costs(ms):
    layers = [f"block{i}/convolution_depthwise/first" for i in range(2)]
    ops = [("DEPTHWISE_CONV_2D", layers[0]), ("CONV_2D", layers[1])]
    mix = [Mix(*(15_841_000 * i + j for j in range(1, 10))) for i in range(4)]
    rows = [
        OpCost(i, op, layer, "Convolution (NHWC, QC8) DWConv", mix[i], ms and ms * i / 8, "memory")
        for i, (op, layer) in enumerate(ops)
    ]
    return Costs("sim:cortex-a53", mix[3], tuple(rows), mix[0], "", "simulated", ms, ms and ms / 4)


def op_table():
    rows = [
        OpRow(i, "DEPTHWISE_CONV_2D", f"{n}/conv", "NPU", (123_456 + i, 9_876_543, 22), "why not")
        for i, n in enumerate(NAMES)
    ]
    return OpTable(
        "ethosu:u55-128", "simulated", ("cycles", "MACs", "bytes"), tuple(rows), "cycles"
    )


def matches():
    return [
        OutputMatch(name, target, 128_000, 994, 1.0, None)
        for name, target in itertools.product(NAMES, ("arm64:cortex-a53", "arm64:cortex-a76"))
    ]


def scores():
    score = Score(200, 10_000, {"accuracy": 0.915}, {"accuracy": 0.92}, {"accuracy": 0.0197})
    return [Timing(n, "arm64:cortex-a53", "emulated", 1, 1, score=score) for n in NAMES]


def text_of(renderable, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def words(text):
    return [w for w in text.split() if NUMBER.fullmatch(w)]


TABLES = {
    "times": (lambda: timing_table(times()), ["14,600 *", "0.33x"]),
    "npu": (lambda: timing_table(npu()), ["39.9", "0.33x"]),
    "run": (lambda: record_table(make()), ["0.0285 / 0.0300 / 0.0360", "91.95 %"]),
    "ops": (lambda: costs_table("m", costs(None)), ["15,841,001", "47,523,001", "33.3%"]),
    "simulated ops": (lambda: costs_table("m", costs(1.6e-4)), ["0.0000200", "12.5%", "memory"]),
    "npu ops": (lambda: costs_table("m", op_table()), ["123,456", "33.3%"]),
    "matches": (lambda: matches_table(matches()), ["1", "codes"]),
    "scores": (lambda: scores_table(scores()), ["91.50 %", "-0.50"]),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_numbers_are_whole_and_lines_fit(name, width):
    build, needed = TABLES[name]
    whole, text = text_of(build(), 10_000), text_of(build(), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert words(text) and set(words(text)) <= set(words(whole))
    assert all(cell in text for cell in needed), text
    if "left out" in text:
        assert "all" in text.split("left out at this width: ")[1]
    else:
        assert len(words(text)) == len(words(whole))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["times", "npu", "matches", "scores"])
def test_files_are_told_apart_and_legible(name, width):
    lines = text_of(TABLES[name][0](), width).splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("res") and "  " in line]
    assert len(set(shown)) == 3
    for short in set(shown):
        (full,) = [n for n in NAMES if short.startswith("res") and n.endswith(short[-4:])]
        assert len(short) >= 10 and (short == full or "..." in short)


def test_optional_columns_go_in_order_and_are_named():
    def left_out(width):
        (line,) = re.findall(
            "left out at this width: (.*?);", one_line(timing_table(times()), width)
        )
        return set(line.split(", "))

    assert "left out" not in text_of(timing_table(times()), 150)
    steps = [left_out(w) for w in (96, 88, 80, 66, 60)]
    order = ["init ms", "peak MB", "partitions", "size", "XNNPACK ops"]
    assert all(s == set(order[: len(s)]) for s in steps)
    assert len(steps[-1]) > len(steps[0])


def one_line(renderable, width):
    return " ".join(text_of(renderable, width).split())


def test_nothing_is_left_out_or_wrapped_where_there_is_no_terminal(capsys):
    make_console().print(timing_table(times()))
    lines = capsys.readouterr().out.splitlines()
    assert sum(all(w in line for w in (NAMES[0], "12.3", "133", "12/13")) for line in lines) == 1


def test_names_differ_however_they_are_cut():
    for names in (
        ["a" * 40 + "x" + "b" * 40, "a" * 40 + "y" + "b" * 40],
        ["a" * 40 + "x", "a" * 40 + "y"],
        ["x" + "a" * 40, "y" + "a" * 40, "short"],
        [f"{'a' * 20}{i}{'b' * 30}{j}{'c' * 30}" for i in range(5) for j in range(5)],
        ["名前" * 20 + "一", "名前" * 20 + "二"],
    ):
        for width in (8, 10, 20, 40):
            found = shorten(names, width)
            assert len(set(found.values())) == len(names)
            assert all(cell_len(v) <= width for v in found.values())
        least = least_width(names)
        assert not any(v.endswith(f"...{i}") for i, v in enumerate(shorten(names, least).values()))
    assert shorten(["resnet8_fashion_mnist_w8a8"], 19) == {
        "resnet8_fashion_mnist_w8a8": "resnet8_...ist_w8a8"
    }


def test_what_a_terminal_obeys_is_not_printed():
    text = text_of(plain_table("", ["layer", "n"], [["a\x1b[31m\nb", 12345], ["[red]c", 1]]), 80)
    assert "\x1b" not in text and "12,345" in text and "a?[31m b" in text and "[red]c" in text


@pytest.mark.parametrize(
    ("different", "largest", "relative", "words"),
    [
        (0, 0.0, None, "codes equal"),
        (7, 1.0, None, "codes within one step"),
        (7, 2.0, None, "codes differs"),
        (0, 0.0, 0.0, "values equal"),
        (7, 1.2e-6, 3e-7, "1.2e-06 values differs by 3.0e-07 (relative)"),
        (7, 0.0, 0.0, "values equal but for signs of zeros"),
    ],
)
def test_outputs_have_a_verdict(different, largest, relative, words):
    match = OutputMatch("m", "tflm", 100, different, largest, relative)
    (line,) = [x for x in text_of(matches_table([match]), 200).splitlines() if x.startswith("m ")]
    assert " ".join(line.split()).endswith(words)


def test_an_allocation_has_whole_bytes(capsys):
    found = SimpleNamespace(
        choices=[SimpleNamespace(unit="u", scheme="w8a8", noise=1e-5, bytes=13904.0, latency_us=2)],
        measured={"sqnr_db": 31.25, "bytes": 10940.0, "latency_us": 1234.56},
        predicted={"bytes": 1234567.0}, uniform={}, dropped={},
        target="sim:cortex-a72", source="simulated", missed="sqnr_db 31.2 instead of 40.0",
    )  # fmt: skip
    show_allocation(found, None)
    shown = capsys.readouterr().out.split()
    assert {"13,904", "10,940", "1,234,567", "1,234.6", "31.2"} <= set(shown)
    assert "sim:cortex-a72, estimated" in " ".join(shown) and "missed:" in shown


def test_wide_tables_still_show_two_columns():
    header = [f"column{i}" for i in range(20)]
    text = text_of(plain_table("", header, [["name", *range(1000, 1019)]]), 40)
    assert "name" in text and "1,000" in text and "left out at this width" in text
    assert max(map(len, text.splitlines())) <= 40
