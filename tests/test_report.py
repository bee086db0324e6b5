"""Reports: the rich table and the offline HTML page."""

import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from tests.report_records import make, timing
from tfedge.record import Record, Timing
from tfedge.report import record_table, rows, timing_table, write_report


def text_of(renderable, width=170):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def line_of(text, *words):
    lines = [line for line in text.splitlines() if all(w in line for w in words)]
    assert len(lines) == 1, text
    return lines[0]


def test_table_compares_every_file_with_the_first_float32_file():
    text = text_of(record_table(make(), "demo"))
    line = line_of(text, "pruned + distilled + QAT", "w8a8")
    for cell in ("91.95 %", "-0.35", "33 KB", "9.70x", "8.25 k", "2.6 M", "6.67x", "12/12"):
        assert cell in line
    assert "0.0285 / 0.0300 / 0.0360" in line
    assert "host, measured, 1 thread; avx512_vnni; 50 runs" in text


def test_keras_rows_stand_only_where_no_float32_file_does():
    records = rows.shown(make())
    assert [r.stage for r in records if r.scheme == "keras"] == ["03_qat"]


def test_notes_and_markup_in_labels_are_shown_as_they_are():
    records = make()
    records[1].label = "base [red]line[/red]"
    text = text_of(record_table(records))
    assert "base [red]line[/red]" in text
    assert "[warning] 1 op needs an int64 bias" in text


def test_slow_16x8_is_said():
    records = make()
    assert "slower than float32" not in " ".join(rows.footnotes(records[:-1]))
    assert "16x8 (w8a16) is slower than float32 here" in text_of(record_table(records))


def test_nothing_is_compared_across_targets_or_threads():
    records = make()
    records[2].timing.append(timing("x", 0.001, None, threads=4))
    four = rows.TimingKey("host", "measured", 4)
    assert rows.speed_up(records[2], rows.baseline_of(records), four) is None
    text = text_of(record_table(records))
    assert "not comparable" in text
    assert text.count("min / p50 / p90 ms") == 2  # one table a key, none in the main table
    assert "host, measured, 4 threads" in text


def test_paired_ratio_is_preferred_to_unpaired_times():
    base = Record("a", "a", "float32", bytes=1, timing=[timing("a", 1.0, 1.0)])
    fast = Record("b", "b", "w8a8", bytes=1, timing=[timing("b", 0.5, 0.25)])
    key = rows.timing_keys([base])[0]
    assert rows.speed_up(fast, base, key) == pytest.approx(4.0)
    fast.timing = [dataclasses.replace(fast.timing[0], ratio_p50=None)]
    assert rows.speed_up(fast, base, key) == pytest.approx(2.0)


def test_emulated_rows_show_instructions_and_no_latency():
    counted = timing("a", 1.0, None, source="emulated")
    counted = dataclasses.replace(
        counted, min_ms=None, p50_ms=None, p90_ms=None, instructions=24_500_000
    )
    records = [Record("a", "a", "float32", bytes=1, timing=[counted])]
    text = text_of(record_table(records))
    assert "24.5 M instr." in text
    assert "never a latency" in text


def test_memory_and_bounds_are_no_latency(tmp_path):
    arena = Timing("m", "tflm", "emulated", 1, 1, arena_bytes=4_016, delegate="TFLM", note="so")
    part = Timing("m", "npu", "simulated", 1, 1, min_ms=0.25, cycles=9_000, note="2 ops left")
    plain = dataclasses.replace(part, min_ms=0.5, p50_ms=0.5, note="")
    records = [
        Record("a", "a", "float32", bytes=9, timing=[arena, plain]),
        Record("b", "b", "w8a8", bytes=5, timing=[part]),
    ]
    text = text_of(record_table(records))
    assert "4,016 B" in text and "times smaller" in text and "TFLM ops" in text
    assert "> 0.25" in text and "2 ops left" in text and "tflm: so" in text
    assert rows.speed_up(records[1], records[0], rows.key_of(part)) is None
    write_report(records, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "arena (tflm, emulated, 1 thread)" in page
    assert "fewer instructions" not in page


def test_records_without_scores_timings_or_files_still_print():
    text = text_of(record_table([Record("00_baseline", "baseline")]))
    assert "baseline" in text
    assert text_of(record_table([])).strip()


def test_other_scores_than_accuracy():
    records = [
        Record("a", "a", "float32", metrics={"mse": 0.25}, bytes=10),
        Record("b", "b", "w8a8", metrics={"mse": 0.5}, bytes=5),
    ]
    line = line_of(text_of(record_table(records)), "w8a8")
    assert "0.5" in line
    assert "+0.25" in line
    assert "%" not in line


def test_timing_table_has_one_table_a_key():
    timings = [timing("a", 1.0, 1.0), timing("b", 0.5, 0.5), timing("b", 0.5, None, threads=2)]
    text = text_of(timing_table(timings))
    assert "2.00x" in line_of(text.split("2 threads")[0], "b  ")
    assert text.count("min / p50 / p90 ms") == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.978e-5, "0.0000198"), (0.0, "0"), (9.999, "10.0"), (99.96, "100"), (123.4, "123"),
        (14567.3, "14,600"), (1, "1.00"), (-0.5, "-0.500"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_are_never_powers_of_ten(value, text):
    assert rows.digits_text(value) == text


def test_sizes_and_counts_are_never_powers_of_ten():
    assert rows.bytes_text(999_900) == "1,000 KB" and rows.bytes_text(31_400) == "31.4 KB"
    assert rows.count_text(999_999_999) == "1,000 M" and rows.count_text(12_000_000) == "12 M"


def simulated(name, ms, ratio=None, delegate="XNNPACK", target="sim:cortex-a72"):
    return Timing(
        name, target, "simulated", 1, 1, ms, ms, cycles=ms and ms * 1e6, ratio_p50=ratio,
        sram_peak_bytes=0, delegate=delegate,
    )  # fmt: skip


def joined(renderable):
    return " ".join(text_of(renderable).split())


def test_estimates_have_three_digits_and_say_what_they_are():
    text = joined(timing_table([simulated("a", 12.3456, 1.0), simulated("b", 11.11, 0.9)]))
    assert " 12.3 " in text and "12.35" not in text
    for said in ("bound from below", "1.4 to 2.0 times", "docs/TARGETS.md", "below a third"):
        assert said in text
    other = joined(timing_table([simulated("a", 12.3456, delegate="NPU", target="ethosu:u55-32")]))
    assert "an estimate, not a measurement" in other and "from below" not in other


@pytest.mark.parametrize(
    ("ratio", "big"), [(0.9, "as fast"), (1.2, "as fast"), (0.5, "2.0x"), (2.0, "2.0x")]
)
def test_the_page_boasts_of_no_estimate_that_may_be_wrong(tmp_path, ratio, big):
    records = [
        Record("a", "a", "float32", bytes=9, timing=[simulated("a", 10.0, 1.0)]),
        Record("b", "b", "w8a8", bytes=9, timing=[simulated("b", 10.0 * ratio, ratio)]),
    ]
    write_report(records, tmp_path / "r.html")
    cards = (tmp_path / "r.html").read_text().split('class="cards"')[1].split("<section>")[0]
    assert f'<div class="big">{big} <span>' in cards and "bound from below" in cards
    assert ("too close to tell" in cards) is (big == "as fast")
    assert "estimate" in cards


def test_a_file_without_numbers_has_none_and_is_named():
    empty, full = simulated("none", None), simulated("some", 2.0)
    npu = [dataclasses.replace(t, delegate="NPU", flash_traffic_bytes=0) for t in (empty, full)]
    npu[1] = dataclasses.replace(npu[1], sram_peak_bytes=5000)
    text = text_of(timing_table(npu))
    assert " 0 B" not in line_of(text, "none ") and "5 KB" in line_of(text, "some ")
    why = "no comparison: the first file has no number to compare with"
    assert why in text and why not in text_of(timing_table(npu[::-1]))
    assert why not in text_of(timing_table(npu[:1]))
    bound = dataclasses.replace(npu[0], min_ms=1.0)
    assert "the first file has only a bound" in text_of(timing_table([bound, npu[1]]))


def test_one_run_and_one_load_are_singular(tmp_path):
    text = text_of(timing_table([timing("a", 1.0, 1.0, runs=1), timing("b", 1.0, 1.0, runs=1)]))
    assert "; 1 run, in pairs" in text and text.rstrip().endswith("load 0.7")
    loads = [dataclasses.replace(timing("a", 1.0, 1.0), load=v) for v in (0.3, 1.2)]
    assert "50 runs" in text_of(timing_table(loads)) and "load 0.3 to 1.2" in joined(
        timing_table(loads)
    )
    write_report([Record("a", "a", "float32", bytes=9, timing=loads[:1])], tmp_path / "r.html")
    assert "50 runs, avx512_vnni, load 0.3<" in (tmp_path / "r.html").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    records = make()
    records[3].label = "</script><b>x"
    write_report(records, path, title="a < b", facts={"tensorflow": "2.21 & more"})
    return path.read_text()


def test_page_is_one_offline_file(page):
    assert page.count("plotly.js v") >= 1
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert page.count('class="plotly-graph-div"') == 4


def test_page_escapes_names(page):
    assert "</script><b>x" not in page
    assert "&lt;/script&gt;&lt;b&gt;x" in page
    assert "<title>a &lt; b</title>" in page
    assert "2.21 &amp; more" in page
    assert "logits <b>" not in page


def test_page_holds_every_row_and_section(page):
    for heading in ("Results", "Accuracy against size", "Error by layer", "Certificates"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<details>") == 8
    assert "16-bit activations are never delegated" in page
    assert "SQNR against the Keras model, dB" in page
    assert "Latency p50 per inference, ms (host, measured, 1 thread)" in page.replace(
        "\\u002f", "/"
    )


def test_page_of_few_facts_leaves_sections_out(tmp_path):
    path = tmp_path / "r.html"
    write_report([Record("00_baseline", "baseline")], path)
    text = path.read_text()
    assert "<h2>Results</h2>" in text
    assert "Error by layer" not in text
    assert "plotly-graph-div" not in text.split("</script>")[-1]


def test_an_old_report_stays_where_the_new_one_fails(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_report(make(), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_infinite_error_is_drawn(tmp_path):
    records = make()
    record = next(r for r in records if r.drift)
    layers = list(record.drift.layers)
    layers[0] = dataclasses.replace(layers[0], sqnr_db=float("inf"))
    record.drift = dataclasses.replace(record.drift, layers=tuple(layers))
    write_report(records, tmp_path / "r.html")
    data = (tmp_path / "r.html").read_text()
    assert "Infinity" not in "".join(re.findall(r'"y":\[[^]]*\]', data))
    assert json.dumps("inf") in data
