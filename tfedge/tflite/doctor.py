"""Why a file is slow on a CPU: what XNNPACK leaves out, by which rule, at which cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tfedge.errors import ConversionError, TargetError
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import check_runs
from tfedge.tflite.delegation import broken_rule, message, views
from tfedge.tflite.fixes import FIXES, ON_REQUEST, TO_RUN, Fix, find
from tfedge.tflite.interpreter import OpInfo
from tfedge.tflite.layers import op_layers
from tfedge.tflite.op_times import OpTimes
from tfedge.tflite.pieces import attempt

Clock = Callable[[bytes], tuple[OpTimes, float]]
"""Gives the times of a file's ops, and microseconds of a whole inference (the quickest)."""


@dataclass(frozen=True)
class Finding:
    """One op that could be quicker.

    Attributes:
        index: Position of the op in the main subgraph.
        op: Its builtin or custom name.
        tensor: Name of its first output; of fused ops, the last one's.
        layer: The Keras layer behind it where the file says, else "".
        rule: The rule of `doctor_rules.RULES` that it breaks, or "" where none is known; for an op
            that XNNPACK runs, the fix of `fixes.FIXES` that would still mend something.
        message: The docstring of that rule or fix.
        cost_us: Microseconds that it took outside the delegate; None where XNNPACK runs it or
            where it was not measured.
        share: That cost as a part of a whole inference.
        fix: The fix that would rewrite it, or ""; one of `fixes.ON_REQUEST` only on request.
    """

    index: int
    op: str
    tensor: str
    layer: str
    rule: str
    message: str
    cost_us: float | None = None
    share: float | None = None
    fix: str = ""


@dataclass(frozen=True)
class Partition:
    """A part of the file that XNNPACK runs as one.

    Attributes:
        first: Position of its first op.
        last: Position of its last op.
        ops: Number of its ops.
    """

    first: int
    last: int
    ops: int


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found in a file.

    Attributes:
        findings: By cost, then by position.
        partitions: XNNPACK's, in order.
        total_ops: Ops of the main subgraph.
        outside: How many of them XNNPACK leaves out.
        total_us: Microseconds of an inference, the quickest measured; None if not measured.
        delegated_us: Microseconds of that within XNNPACK's kernels.
        outside_us: Microseconds of the ops left out.
        problem: Why the file does not run here (then nothing is known of the delegate, and the
            findings are those of the rules), or "".
        notes: What else is to be said.
    """

    findings: tuple[Finding, ...]
    partitions: tuple[Partition, ...]
    total_ops: int
    outside: int
    total_us: float | None = None
    delegated_us: float | None = None
    outside_us: float | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()


def diagnose(data: bytes, layers: Sequence[str] = (), clock: Clock | None = None) -> Diagnosis:
    """Looks at a file's ops; it is run in another process, so that a bad one cannot end this one.

    Args:
        data: The whole file.
        layers: Names of the Keras model's layers in topological order, where known.
        clock: Measures it; None leaves costs out.

    Raises:
        InputError: The data is no TFLite file, or a damaged one.
    """
    model = flatbuffer.read(data)
    problem, ops = "", None
    try:
        ops = check_runs(data)
    except ConversionError as error:
        problem = str(error)
    notes = [_BODIES.format(len(model.subgraphs) - 1)] if len(model.subgraphs) > 1 else []
    times, total = None, None
    if clock is not None and not problem:
        try:
            times, total = clock(data)
            notes += [times.note] if times.note else []
        except TargetError as error:
            notes.append(f"Times were not measured. {error}")
    found = _findings(model, data, layers, ops)
    timed = [_timed(f, times, total, ops) for f in found]
    outside = [] if ops is None else [o for o in ops if not o.delegated]
    return Diagnosis(
        tuple(sorted(timed, key=lambda f: (-(f.cost_us or 0.0), f.index))),
        _partitions(ops or []),
        len(model.subgraphs[0].operators or []),
        len(outside),
        total,
        None if times is None else times.delegated_us,
        None if times is None else sum(times.ops.get(o.index, 0.0) for o in outside),
        problem,
        tuple(notes),
    )


_BODIES = "The file has {} further subgraphs (bodies of loops, other signatures): not looked into."


def _findings(
    model: Any, data: bytes, layers: Sequence[str], ops: Sequence[OpInfo] | None
) -> list[Finding]:
    fixable = fixable_ops(data, TO_RUN if ops is None else [*FIXES, *ON_REQUEST])
    behind = op_layers(model, layers) if layers else []
    found = []
    for index, view in enumerate(views(model)):
        delegated = ops is not None and ops[index].delegated
        rule = "" if delegated else broken_rule(view)
        fix = fixable.get(index, "")
        if (delegated and not fix) or (ops is None and not rule):
            continue
        names = [flatbuffer.tensor_name(t) for t in view.outputs[:1]]
        found.append(
            Finding(
                index=index,
                op=view.name,
                tensor=names[0].rpartition(";")[2] if names else "",
                layer=behind[index] if behind else "",
                rule=fix if delegated else rule,
                message=_told(find(fix)) if delegated else message(rule),
                fix=fix,
            )
        )
    return found


def _told(fix: Fix) -> str:
    paragraphs = (fix.__doc__ or "").split("\n\n")
    return "\n".join(" ".join(p.split()) for p in paragraphs)


def fixable_ops(data: bytes, names: Iterable[str]) -> dict[int, str]:
    """The first of some fixes that would rewrite an op, by the op's position."""
    found: dict[int, str] = {}
    for name in names:
        for index in attempt(data, find(name), keep=False).old:
            found.setdefault(index, name)
    return found


def _timed(
    finding: Finding, times: OpTimes | None, total: float | None, ops: Sequence[OpInfo] | None
) -> Finding:
    delegated = ops is None or ops[finding.index].delegated
    if times is None or delegated or finding.index not in times.ops:
        return finding
    cost = times.ops[finding.index]
    share = min(1.0, cost / total) if total else None
    return Finding(**{**vars(finding), "cost_us": cost, "share": share})


def _partitions(ops: Sequence[OpInfo]) -> tuple[Partition, ...]:
    members: dict[int, list[int]] = {}
    for op in ops:
        if op.partition is not None:
            members.setdefault(op.partition, []).append(op.index)
    parts = [Partition(min(m), max(m), len(m)) for m in members.values()]
    return tuple(sorted(parts, key=lambda p: p.first))
