"""Device files: targets with a name and settings of their own."""

import dataclasses
import json
from pathlib import Path

import pytest

import tfedge
from tests import tflite_files
from tfedge.bench import measure
from tfedge.cli import cmd_target
from tfedge.cli.main import main
from tfedge.errors import InputError, TargetError
from tfedge.recipe import from_dict as recipe_from
from tfedge.start import check_names
from tfedge.targets import FAMILIES, TARGETS, Counter, Profiler, Target, device, get_target

SHIPPED = Path(tfedge.__file__).parents[1] / "configs/targets"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="desk.yaml"):
        Path(name).write_text(text)
        return name

    return write


def test_a_device_stands_wherever_a_target_does(write, capsys):
    name = write("name: my desk\ntarget: host\nthreads: 2\ndescription: here\n")
    place = get_target(name)
    assert isinstance(place, Target) and isinstance(place, Profiler)
    assert isinstance(place, Counter)
    assert (place.name, place.source, place.threads) == ("my desk", "measured", 2)
    Path("m.tflite").write_bytes(tflite_files.file("image", "int8"))
    (timing,) = measure("m.tflite", target=name, runs=2)
    assert (timing.target, timing.threads) == ("my desk", 2)
    # What is asked for counts more than what the file says.
    assert tfedge.benchmark("m.tflite", target=name, runs=2, threads=1)[0].threads == 1
    assert tfedge.benchmark("m.tflite", runs=2)[0].threads == 1
    assert main(["benchmark", "m.tflite", f"--target={name}", "--outputs", "--runs=2"]) == 0
    assert "my desk, measured, 2 threads" in capsys.readouterr().out
    assert tfedge.doctor("m.tflite", target=name).before.total_us > 0
    stages = [{"stage": "convert"}, {"stage": "benchmark", "targets": [name]}]
    check_names(recipe_from({"name": "r", "stages": stages}))


def test_names_default_to_the_files_and_may_not_meet(write):
    first, second = write("target: host\n", "a.yaml"), write("target: host:amx\nname: a\n", "b.yml")
    assert get_target(first).name == get_target(second).name == "a"
    with pytest.raises(InputError, match="same name.*'a'"):
        measure(tflite_files.file("two"), target=[first, second], runs=1)


def test_options_are_settings_of_the_target(write):
    place = get_target(write("target: host\noptions: {timeout_s: 60, amx: true}\n"))
    assert place.place.timeout_s == 60 and place.place.name == "host:amx"
    place = get_target(write("target: sim:cortex-a72\noptions: {clock_ghz: 1.8}\n"))
    assert place.place.core.clock_ghz == 1.8 and isinstance(place, Counter)
    for options, expected in (
        ("{timeout: 60}", "desk.yaml.*no such option.*'timeout'.*Did you mean 'timeout_s'"),
        ("{source: measured}", "no such option"),
        ("{timeout_s: long}", "option timeout_s must be a number.*'long'"),
        ("{timeout_s: true}", "must be a number"),
        ("{amx: 1}", "option amx must be true or false"),
    ):
        with pytest.raises(InputError, match=expected):
            get_target(write(f"target: host\noptions: {options}\n"))
    with pytest.raises(InputError, match="desk.yaml: .*clock"):
        get_target(write("target: sim:cortex-a72\noptions: {clock_ghz: -1}\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("taregt: host\n", "desk.yaml: unknown key 'taregt'. Did you mean 'target'"),
        ("threads: 2\n", "desk.yaml: the device has no 'target'"),
        ("target: 3\n", "target must be text. Found: 3"),
        ("target: host\nthreads: 0\n", "threads must be a whole number, at least 1"),
        ("target: host\nthreads: true\n", "threads must be a whole number"),
        ("target: host\nname: ''\n", "name must be text"),
        ("target: host\noptions: 3\n", "options must be a mapping"),
        ("target: other.yaml\n", "cannot be another device"),
        ("- host\n", "a device is a mapping of keys. Found: list"),
        ("", "a device is a mapping"),
        ("target: [\n", "desk.yaml: the device file is not a YAML file"),
        ("target: host\ntarget: host\n", "desk.yaml: the key 'target' is written twice"),
    ],
)
def test_wrong_files_are_told(write, text, expected):
    with pytest.raises(InputError) as caught:
        get_target(write(text))
    assert expected in str(caught.value)


def test_unknown_targets_and_files_are_answered_with_the_nearest(write):
    with pytest.raises(TargetError, match="Did you mean 'sim:cortex-a72'"):
        get_target(write("target: sim:cortex-72\n"))
    write("target: host\n", "board.yaml")
    with pytest.raises(TargetError, match="cannot read.*bord.yaml.*Did you mean 'board.yaml'"):
        get_target("bord.yaml")


def test_the_list_shows_targets_families_and_devices(write, capsys):
    Path("configs/targets").mkdir(parents=True)
    write("target: host\ndescription: a [bold] desk\n", "configs/targets/desk.yaml")
    write("tarjet: host\n", "configs/targets/wrong.yaml")
    assert main(["target", "list"]) == 0
    out = capsys.readouterr().out
    assert {name.partition(":")[0] for name in cmd_target.FREE} == set(FAMILIES)
    assert all(name in out for name in cmd_target.FREE)
    assert "configs/targets/desk.yaml" in out and "a [bold] desk" in out
    assert "unknown key 'tarjet'" in out and "--target takes their paths" in out
    assert main(["target", "list", "--json=-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["device"] for r in rows if "device" in r] == [
        "configs/targets/desk.yaml", "configs/targets/wrong.yaml",
    ]  # fmt: skip


def test_the_stage_depends_on_what_the_files_say(write):
    name = write("target: host\n")
    before = device.texts([name, "host"])
    write("target: host\nthreads: 2\n")
    assert list(before) == [name] and device.texts([name]) != before


@pytest.mark.parametrize("path", device.files_in(SHIPPED), ids=lambda p: p.stem)
def test_shipped_devices_are_sound(path):
    spec = device.load(path)
    assert spec.description and spec.name == path.stem
    if spec.target in TARGETS or spec.target.partition(":")[0] in FAMILIES:
        place = spec.make()
        assert place.name == path.stem
        assert dataclasses.replace(spec, name="x").make().name == "x"


def test_devices_are_shipped():
    assert len(device.files_in(SHIPPED)) >= 6
