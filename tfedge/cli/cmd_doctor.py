"""Says why a TFLite file is slow: which ops XNNPACK leaves out, by which rule, at which cost.

    tfedge doctor model.tflite --fix

With --fix the rewrites that hold are applied: each is proved on this very file, on random inputs
and on --data; one that moves an output too far, or makes the file slower, is undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfedge.cli.output import check_folder, show, write_json
from tfedge.errors import ConversionError, InputError

REQUIRED = ()  # The file may be the first argument instead of a flag.


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("tflite", None, "TFLite file (or as the first argument).", flag_values=values)
    string("target", "host", "Where to measure.", flag_values=values)
    flags.DEFINE_boolean("fix", False, "Apply the rewrites that hold.", flag_values=values)
    string("output", None, "Where to write the mended file, for --fix; without it "
           "model.fixed.tflite beside model.tflite.", flag_values=values)  # fmt: skip
    string("data", None, "Inputs to prove the fixes on, besides random ones: X.npz, a folder of "
           "images.", flag_values=values)  # fmt: skip
    flags.DEFINE_float("max_steps", 1.0, "Steps that --fix may move an output of the file; each "
                       "rewritten op alone stays within one.", flag_values=values)  # fmt: skip
    flags.DEFINE_boolean("allow_float", False, "Let --fix compute 8-bit ops in float that XNNPACK "
                         "has for floats only; not for NPUs and microcontrollers.",
                         flag_values=values)  # fmt: skip
    string("json", None, "Write the result here; - for standard output.", flag_values=values)


def take_rest(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Takes the file as the first argument."""
    if len(rest) > 1 or values.tflite:
        raise InputError("doctor takes one file", ", ".join(rest))
    values.tflite = rest[0]


def run(values: flags.FlagValues) -> None:
    """Diagnoses, mends and prints."""
    if not values.tflite:
        raise InputError("there is no file", fix="Write: tfedge doctor model.tflite")
    output = _output(values)
    for path in (values.json, output):
        check_folder(path)
    from tfedge import api
    from tfedge.progress import working
    from tfedge.report.checkup import checkup_tables, summary

    with working("examining the file" + (" and trying fixes" if values.fix else "")):
        found = api.doctor(
            values.tflite,
            values.fix,
            values.target,
            values.data,
            values.max_steps,
            values.allow_float,
        )
    kept = any(f.kept for f in found.fixes)
    if kept and output and found.file is not None:
        found.file.save(output)
    plain = {k: v for k, v in vars(found).items() if k != "file"}
    write_json(values.json, {**plain, "output": output if kept else None})
    show(checkup_tables(found.before, found.fixes, found.timing), values.json)
    if kept and found.after is not None:
        show(f"after: {summary(found.after)}; written to {output}", values.json)
    elif values.fix:
        show("nothing was changed", values.json)
    if found.before.problem and not kept:
        raise ConversionError("the file does not run here", found.before.problem)


def _output(values: flags.FlagValues) -> str | None:
    if values.fix:
        path = Path(values.tflite)
        return values.output or str(path.with_name(f"{path.stem}.fixed.tflite"))
    for name in ("output", "data", "max_steps", "allow_float"):
        if values[name].present:
            raise InputError(f"--{name} is for --fix", str(values[name].value), "Add --fix")
    return None
