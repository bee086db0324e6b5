"""Compares a TFLite file with the Keras model that it was made from, layer by layer.

With --ops each op of the file alone is compared with its simulation, both fed the file's own codes.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from tfedge.cli.output import check_folder, show, write_json
from tfedge.errors import InputError
from tfedge.files import write_atomic
from tfedge.record import Drift, OpAgreement

REQUIRED = ("model", "tflite", "data")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("model", None, "Keras model (.keras, .h5, SavedModel).", flag_values=values)
    string("tflite", None, "TFLite file.", flag_values=values)
    string("data", None, "Samples: X.npz, a folder of images, or random:8.", flag_values=values)
    flags.DEFINE_enum(
        "ops",
        None,
        ["xnnpack", "builtin", "reference"],
        "Compare op by op with a quantize-aware model, under these kernels.",
        flag_values=values,
    )
    string("json", None, "Write the result here; - for standard output.", flag_values=values)
    string("plot", None, "Draw the layers' differences here (.svg).", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Compares and prints the differences."""
    check_folder(values.json)
    check_folder(values.plot)
    if values.plot and values.ops:
        raise InputError("--plot draws layers and --ops compares ops", "both", "Leave one out")
    from tfedge import api
    from tfedge.progress import working
    from tfedge.tflite import TFLiteModel

    file = TFLiteModel.load(values.tflite)
    if values.ops:
        with working("comparing op by op"):
            rows = api.verify_ops(
                api.load_model(values.model), file, values.data, kernels=values.ops
            )
        write_json(values.json, rows)
        show_ops(rows, values.json)
        return
    with working("comparing"):
        drift = api.verify(api.load_model(values.model), file, values.data)
    write_json(values.json, drift)
    show_drift(drift, values.json)
    if values.plot:
        from tfedge.report.drift_plot import drift_svg

        title = f"{Path(values.tflite).name} against {Path(values.model).name}"
        write_atomic(values.plot, drift_svg(drift, title).encode())


def show_drift(drift: Drift, json_path: str | None) -> None:
    """Prints a drift: one table of layers, one line of totals."""
    from tfedge.report import plain_table

    if drift.layers:
        cells = [
            [d.layer, f"{d.sqnr_db:.1f}", f"{d.max_step:.3g}", f"{d.cosine:.6f}"]
            for d in drift.layers
        ]
        show(plain_table("", ["layer", "SQNR dB", "max steps", "cosine"], cells), json_path)
    agree = drift.top1_agreement
    parts = [
        f"samples {drift.samples}",
        f"output SQNR {drift.sqnr_db:.1f} dB",
        f"max {drift.max_step:.3g} steps",
        f"within one step {100 * drift.within_one_step:.2f} %",
        f"cosine {drift.cosine:.6f}",
        *([f"same top-1 {100 * agree:.1f} %"] if agree is not None else []),
        f"first layer below the threshold: {drift.first_layer or 'none'}",
        f"worst layer: {drift.worst_layer or 'none'}",
    ]
    show("; ".join(parts), json_path)


def show_ops(rows: list[OpAgreement], json_path: str | None) -> None:
    """Prints a table of ops and one line of totals."""
    from tfedge.report import plain_table

    head = ["op", "layer", "equal", "within one step", "max steps", ""]
    cells = [
        [
            f"{r.index} {r.op}",
            r.layer,
            *(
                [f"{r.exact:.2%}", f"{r.within_one:.2%}", f"{r.max_steps:.0f}"]
                if r.elements
                else [""] * 3
            ),
            r.reason,
        ]
        for r in rows
    ]
    show(plain_table("", head, cells), json_path)
    compared = [r for r in rows if r.elements]
    total = sum(r.elements for r in compared) or 1
    exact = sum(r.exact * r.elements for r in compared) / total
    off = next((f"{r.index} {r.op} ({r.layer})" for r in compared if r.within_one < 1), "none")
    show(
        f"{len(compared)} of {len(rows)} ops compared; equal codes {exact:.2%}; first op more than "
        f"one step off: {off}",
        json_path,
    )
