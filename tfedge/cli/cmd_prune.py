"""Cuts channels out of a model, without training.

--sparsity is the fraction that is cut; --target_macs, --target_params and --target_bytes are what
remains, as a fraction or a number. Give one of them (0.5 is cut where none is given), or --plan to
apply a plan again. The importances "taylor" and "activation", and --remove_blocks, look at --data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from tfedge.cli.output import check_folder, show
from tfedge.cli.training import task_spec
from tfedge.errors import InputError
from tfedge.specs import AMOUNTS, PruneSpec

REQUIRED = ("model", "output")
CHOOSING = (
    *AMOUNTS,
    "scope",
    "importance",
    "round_to",
    "floor",
    "skip",
    "override",
    "block",
    "remove_blocks",
    "data",
    "task",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string, number = flags.DEFINE_string, flags.DEFINE_float
    string("model", None, "Model to prune (.keras, .h5, SavedModel).", flag_values=values)
    string("output", None, "Pruned model (.keras or .h5).", flag_values=values)
    number("sparsity", None, "Fraction of the channels to cut (0.5).", flag_values=values)
    number("target_macs", None, "MACs that remain: fraction or number.", flag_values=values)
    number("target_params", None, "Parameters that remain, likewise.", flag_values=values)
    number("target_bytes", None, "Bytes of the float weights, likewise.", flag_values=values)
    flags.DEFINE_enum(
        "scope",
        "uniform",
        ("uniform", "global"),
        "Each group loses the same share, or all channels compete.",
        flag_values=values,
    )
    string("importance", "l2", "How channels are scored.", flag_values=values)
    flags.DEFINE_integer(
        "round_to", 8, "Channels left are a multiple of this; 1: any.", flag_values=values
    )
    number("floor", None, "Fraction of each group that always stays.", flag_values=values)
    flags.DEFINE_multi_string(
        "block", [], "Residual block (the layer that adds) to remove first.", flag_values=values
    )
    flags.DEFINE_integer(
        "remove_blocks", 0, "Remove this many residual blocks, by --data.", flag_values=values
    )
    string("data", None, "Data: fashion_mnist, X.npz or a folder of images.", flag_values=values)
    string("task", None, "module:function that returns a Task.", flag_values=values)
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
    from tfedge.stages import shrink_request

    if values.plan and not Path(values.plan).is_file():
        raise InputError("there is no such plan", values.plan, "Check the path")
    with working("pruning"):
        model = api.load_model(values.model)
        request = {"plan": values.plan}
        if spec is not None:
            request = shrink_request(spec, model, _task(values, spec, model))
        done = shrink(model, **request)
    save_model(done.model, values.output)
    if values.plan_out:
        with replacing(values.plan_out) as new:
            done.plan.save(new)
    show(str(done.report))


def _task(values: flags.FlagValues, spec: PruneSpec, model: Any) -> Any:
    """The data, where the request looks at any.

    Raises:
        InputError: It does and there is none, or the other way round.
    """
    from tfedge.stages import needs_data
    from tfedge.task import get_task

    if needs_data(spec):
        return get_task(task_spec(values), model=model)
    if values.data or values.task:
        raise InputError(
            "data is of no use here", f"importance '{spec.importance}'",
            "Leave --data out, or use --importance=taylor, activation or --remove_blocks",
        )  # fmt: skip
    return None


def _spec(values: flags.FlagValues) -> PruneSpec:
    """The flags as a checked prune spec."""
    targets = {n: values[n].value for n in AMOUNTS}
    if values.block and values.remove_blocks:
        raise InputError("give either --block or --remove_blocks", "both")
    if all(v is None for v in targets.values()):
        targets["sparsity"] = 0.5
    return PruneSpec(
        **targets,
        importance=values.importance,
        scope=values.scope,
        round_to=values.round_to,
        floor=values.floor,
        blocks=values.remove_blocks or tuple(values.block),
        skip=tuple(values.skip),
        overrides=dict(_override(text) for text in values.override),
        epochs=0,
    )


def _override(text: str) -> tuple[str, Any]:
    name, sign, sparsity = text.rpartition("=")
    if not sign or not name:
        raise InputError("--override needs LAYER=SPARSITY", f"'{text}'")
    return name, sparsity
