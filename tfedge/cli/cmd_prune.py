"""Cuts channels out of a model, without training.

--sparsity is the fraction that is cut; --target_macs and --target_params are the fraction that
remains. Give one of them (0.5 is cut where none is given), or --plan to apply a plan again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from tfedge.cli.output import check_folder, show
from tfedge.errors import InputError
from tfedge.specs import PruneSpec

REQUIRED = ("model", "output")
CHOOSING = (
    "sparsity",
    "target_macs",
    "target_params",
    "importance",
    "round_to",
    "skip",
    "override",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string, number = flags.DEFINE_string, flags.DEFINE_float
    string("model", None, "Model to prune (.keras, .h5, SavedModel).", flag_values=values)
    string("output", None, "Pruned model (.keras or .h5).", flag_values=values)
    number("sparsity", None, "Fraction of the channels to cut (0.5).", flag_values=values)
    number("target_macs", None, "Fraction of the MACs that remains.", flag_values=values)
    number("target_params", None, "Fraction of the parameters that remains.", flag_values=values)
    string("importance", "l2", "How channels are scored.", flag_values=values)
    flags.DEFINE_integer(
        "round_to", 8, "Channels left are a multiple of this; 1: any.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "skip", [], "Layer (name or regex) to leave alone.", flag_values=values
    )
    flags.DEFINE_multi_string("override", [], "LAYER=SPARSITY (name or regex).", flag_values=values)
    string("plan_out", None, "Write the pruning plan here (.json).", flag_values=values)
    string("plan", None, "Apply this plan instead of choosing channels.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Prunes, saves, prints what was cut and what was not, with the reason."""
    from tfedge.files import replacing
    from tfedge.saving import check_output, save_model

    check_output(values.output)
    check_folder(values.plan_out)
    chosen = [n for n in CHOOSING if values[n].present]
    if values.plan and chosen:
        raise InputError("a plan leaves nothing to choose", f"--plan and --{chosen[0]}")
    spec = None if values.plan else _spec(values)
    from tfedge import api
    from tfedge.progress import working
    from tfedge.prune import shrink
    from tfedge.stages import prune_request

    if values.plan and not Path(values.plan).is_file():
        raise InputError("there is no such plan", values.plan, "Check the path")
    with working("pruning"):
        model = api.load_model(values.model)
        request = {"plan": values.plan} if spec is None else prune_request(spec)
        done = shrink(model, **request)
    save_model(done.model, values.output)
    if values.plan_out:
        with replacing(values.plan_out) as new:
            done.plan.save(new)
    show(str(done.report))


def _spec(values: flags.FlagValues) -> PruneSpec:
    """The flags as a checked prune spec."""
    targets = {n: values[n].value for n in ("sparsity", "target_macs", "target_params")}
    if all(v is None for v in targets.values()):
        targets["sparsity"] = 0.5
    return PruneSpec(
        **targets,
        importance=values.importance,
        round_to=values.round_to,
        skip=tuple(values.skip),
        overrides=dict(_override(text) for text in values.override),
        epochs=0,
    )


def _override(text: str) -> tuple[str, Any]:
    name, sign, sparsity = text.rpartition("=")
    if not sign or not name:
        raise InputError("--override needs LAYER=SPARSITY", f"'{text}'")
    return name, sparsity
