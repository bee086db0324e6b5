"""What happens to each layer: the scheme it gets, and why it is not the one that was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfedge._keras import keras
from tfedge.errors import InputError, ModelError, did_you_mean
from tfedge.graph.canonical import unwrap
from tfedge.graph.rewrite import Rewriter
from tfedge.graph.trace import Call
from tfedge.quant.placement import FLOAT, is_fusable_relu, rule_of
from tfedge.quant.refusals import float_activation, no_int16_kernel, no_integer_form

QAT_SCHEMES = ("w8a8", "w8a16", "w4a8")
"""Schemes that can be simulated in training."""

LAYER_SCHEMES = (*QAT_SCHEMES, FLOAT)
"""What `overrides` may give a layer."""


@dataclass(frozen=True)
class Treatment:
    """What happens to one layer.

    Attributes:
        scheme: One of `LAYER_SCHEMES`.
        asked: The scheme that was asked for.
        reason: Why the layer does not get what was asked, or "".
    """

    scheme: str
    asked: str
    reason: str = ""


def treatments(
    site: Rewriter, scheme: str, given: Mapping[str, str], reasons: Mapping[str, str]
) -> dict[str, Treatment]:
    """Decides on every layer of a float model.

    A batch norm and a relu behind a convolution go with it, where no override names them.

    Args:
        site: A rewriter of the traced tf_keras model.
        scheme: One of `QAT_SCHEMES`.
        given: Scheme by layer name, of the layers that have one of their own.
        reasons: Why layers stay float that could not be written in simpler ones, by name.
    """
    found: dict[str, Treatment] = {}
    for call in site.graph.calls:
        asked = given.get(call.name) or _inherited(site, call, found, given) or scheme
        if call.name not in found or found[call.name].scheme != FLOAT:  # of a shared layer's calls
            found[call.name] = _treatment(site, call, asked, reasons.get(call.name, ""))
    return found


def overridden(names: list[str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Scheme by layer name, for the layers that overrides name.

    Args:
        names: All layer names.
        overrides: Exact layer names or regular expressions (of the whole name) -> one of
            `LAYER_SCHEMES`. An exact name wins; of several expressions the last does.

    Raises:
        InputError: An override names no layer, or no scheme.
    """
    given: dict[str, str] = {}
    for pattern, scheme in overrides.items():
        if scheme not in LAYER_SCHEMES:
            raise InputError(
                f"the override of '{pattern}' gives no scheme for a layer", f"'{scheme}'",
                did_you_mean(scheme, LAYER_SCHEMES),
            )  # fmt: skip
        if pattern in names:
            continue
        try:
            hits = [n for n in names if re.fullmatch(pattern, n)]
        except re.error as error:
            raise InputError(f"the override '{pattern}' is no expression", str(error)) from error
        if not hits:
            raise InputError(
                "an override names no layer of the model", f"'{pattern}'",
                did_you_mean(pattern, names),
            )  # fmt: skip
        given |= dict.fromkeys(hits, scheme)
    return given | {n: s for n, s in overrides.items() if n in names}


def _inherited(
    site: Rewriter, call: Call, found: dict[str, Treatment], given: Mapping[str, str]
) -> str:
    """The scheme of the layer before, where the two are computed as one; else ""."""
    joins = isinstance(call.layer, keras.layers.BatchNormalization) or is_fusable_relu(call.layer)
    before = site.sole_maker(call) if joins else None
    while before is not None and before.name not in given:
        layer = before.layer
        joined = isinstance(layer, keras.layers.BatchNormalization)
        before = site.sole_maker(before) if joined else None
    return given[before.name] if before is not None else ""


def _treatment(site: Rewriter, call: Call, asked: str, reason: str) -> Treatment:
    if asked == FLOAT:
        return Treatment(FLOAT, asked)
    layer = becomes(site, call)
    reason = reason or no_integer_form(site.graph, call, layer)
    if reason:
        return Treatment(FLOAT, asked, reason)
    if inner := float_activation(layer):
        return Treatment(asked, asked, inner)
    if asked == "w8a16" and (op := no_int16_kernel(layer)):
        return Treatment("w8a8", asked, f"TFLite has no int16 {op}")
    rule = rule_of(layer)
    if asked == "w4a8" and rule is not None and rule.kernels and not rule.four_bits:
        return Treatment("w8a8", asked, "the runtime has no kernel for its weights in 4 bits")
    return Treatment(asked, asked)


def becomes(site: Rewriter, call: Call) -> Any:
    """The layer that a call's operation becomes in the normal form; else the call's own."""
    pieces = unwrap(site, call)
    return pieces[0].layer if len(pieces) == 1 else call.layer


def explained(site: Rewriter, found: Mapping[str, Treatment]) -> list[str]:
    """One line a layer that does not get the scheme asked for: what it gets, and why."""
    kinds = {c.name: type(c.layer).__name__ for c in site.graph.calls}
    return [f"'{n}' ({kinds[n]}) {_happens(t)}: {t.reason}" for n, t in found.items() if t.reason]


def _happens(treatment: Treatment) -> str:
    if treatment.scheme == FLOAT:
        return "stays float"
    return f"is quantized as {treatment.scheme}"


def refuse(lines: list[str]) -> None:
    """Raises the error of `strict=True`, where there is a reason.

    Raises:
        ModelError: It lists every line.
    """
    if not lines:
        return
    more = f" (and {len(lines) - 8} more)" if len(lines) > 8 else ""
    raise ModelError(
        f"{len(lines)} of the model's layers cannot be quantized as asked (strict=True)",
        "; ".join(lines[:8]) + more,
        "Replace these layers, give them a scheme in overrides, or leave strict out",
    )
