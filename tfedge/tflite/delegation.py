"""Why XNNPACK leaves an op to the runtime's own kernels.

The delegate does not say; `doctor_rules.RULES` are its conditions. They explain what the
interpreter reports and never decide it. An op that none of them explains is called so.
"""

from __future__ import annotations

from tfedge.tflite.doctor_rules import RULES
from tfedge.tflite.op_view import OpView, views

__all__ = ["UNKNOWN", "OpView", "broken_rule", "message", "reason", "views", "why_not"]

UNKNOWN = "XNNPACK refused it (no rule known)"


def broken_rule(op: OpView) -> str:
    """Name of the first rule that an op breaks, or "" where none explains it."""
    return next((name for name, breaks in RULES.items() if breaks(op)), "")


def reason(rule: str) -> str:
    """A rule in one line, to be part of a sentence: its docstring's first; `UNKNOWN` for ""."""
    line = message(rule).partition("\n")[0].rstrip(".")
    return line if line[1:2].isupper() else line[:1].lower() + line[1:]


def message(rule: str) -> str:
    """All that a rule has to say: its docstring, one paragraph a line, or `UNKNOWN` for ""."""
    if not rule:
        return UNKNOWN
    paragraphs = (RULES[rule].__doc__ or "").split("\n\n")
    return "\n".join(" ".join(p.split()) for p in paragraphs)


def why_not(op: OpView) -> str:
    """The reason why XNNPACK leaves an op out, or `UNKNOWN`."""
    return reason(broken_rule(op))
