"""Writes a TFLite file and its certificate: every op, its types, and whether XNNPACK runs it.

A quantize-aware model needs no calibration. The file is loaded and run in a process of its own
before it is called good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import flags

from tfedge.cli.output import check_folder, pairs, show, write_json
from tfedge.errors import InputError
from tfedge.schemes import CPUS, DEPTHWISE, SCHEMES, get_scheme
from tfedge.spec_keys import PTQ_STEPS

REQUIRED = ("model", "output")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("model", None, "Model (.keras, .h5, SavedModel).", flag_values=values)
    string("output", None, "TFLite file to write.", flag_values=values)
    string("scheme", "w8a8", f"One of: {', '.join(SCHEMES)}.", flag_values=values)
    string(
        "calibration",
        None,
        "Samples for the ranges: X.npz, a folder of images, random:32, or synthetic:64 (made up "
        "from the model's batch norms).",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "override",
        [],
        "Scheme of some layers of a float model, NAME=SCHEME; may be given several times.",
        flag_values=values,
    )
    string(
        "ptq",
        "",
        "Steps of post-training quantization for a float model: default, or some of "
        f"{', '.join(PTQ_STEPS)}, with commas between.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "io",
        "int",
        ["int", "float", "uint8"],
        "Inputs and outputs of integer files.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "cpu", "x86_64", list(CPUS), "What w8a16 files are written for.", flag_values=values
    )
    flags.DEFINE_enum(
        "depthwise",
        "integer",
        list(DEPTHWISE),
        "Depthwise convolutions with 16-bit activations (float: hybrid, not full integer).",
        flag_values=values,
    )
    flags.DEFINE_integer("batch", 1, "Samples per inference.", lower_bound=1, flag_values=values)
    flags.DEFINE_multi_string(
        "shape",
        [],
        "Sizes of an input that the model leaves free, without the batch, NAME=320,320,3; may be "
        "given several times.",
        flag_values=values,
    )
    string("certificate", None, "Write the certificate here (.json).", flag_values=values)


def ptq_line(step: Mapping[str, Any]) -> str:
    """A readable line of one step of post-training quantization.

    Args:
        step: As in the file's metadata, under "ptq".
    """
    ratio = "exact" if step["sqnr_db"] is None else f"{step['sqnr_db']:.1f} dB"
    gained = f"{step['gained_db']:+.1f} dB" if step["kept"] else "undone"
    return f"{step['step']}: {ratio} ({gained}, {step['seconds']:.1f} s), {step['note']}"


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise InputError("--shape takes NAME=SIZE,SIZE,...", f"'{text}'") from error


def run(values: flags.FlagValues) -> None:
    """Converts, saves, prints a summary of the ops."""
    get_scheme(values.scheme)
    overrides = pairs("override", values.override)
    shapes = {name: _sizes(text) for name, text in pairs("shape", values.shape).items()}
    check_folder(values.output)
    check_folder(values.certificate)
    from tfedge import api
    from tfedge.progress import working
    from tfedge.tflite.fast16 import elsewhere_note

    with working(f"converting to {values.scheme}"):
        file = api.convert(
            api.load_model(values.model),
            values.scheme,
            calibration=values.calibration,
            io=values.io,
            batch=values.batch,
            shapes=shapes,
            overrides=overrides,
            ptq=values.ptq,
            int16={"cpu": values.cpu, "depthwise": values.depthwise},
        )
    file.save(values.output)
    write_json(values.certificate, file.certificate)
    for step in file.meta.get("ptq", ()):
        show("ptq " + ptq_line(step))
    delegated = sum(row.delegated for row in file.certificate)
    show(
        f"{values.output}: {len(file.data):,} bytes, {values.scheme}, "
        f"{delegated} of {len(file.certificate)} ops delegated to XNNPACK"
    )
    if "no_layers" in file.meta:
        show(f"  converted as a function, without layers: {file.meta['no_layers']}")
    if "rewritten" in file.meta:
        show(f"  written in other operations: {file.meta['rewritten']}")
    if note := elsewhere_note(file.data):
        show(f"  {note}")
    if "hybrid" in file.meta:
        show(f"  {file.meta['hybrid']}")
    for row in file.certificate:
        if not row.delegated:
            show(f"  {row.index} {row.op} ({row.layer or 'no layer'}): {row.reason}")
