"""Shows a model's channel groups, costs and reasons, or a TFLite file's ops and tensors."""

from __future__ import annotations

from absl import flags

from tfedge.cli.output import check_folder, show, write_json

REQUIRED = ("model",)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "model", None, "Model (.keras, .h5, SavedModel) or TFLite file.", flag_values=values
    )
    flags.DEFINE_string(
        "json", None, "Write the result here; - for standard output.", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Inspects and prints."""
    check_folder(values.json)
    from tfedge import api
    from tfedge.progress import working
    from tfedge.report.inspection import inspection

    with working("reading"):
        found = api.inspect(values.model)
    write_json(values.json, found)
    show(inspection(found), values.json)
