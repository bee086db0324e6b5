"""What `tfedge inspect` prints, from the plain values that `api.inspect` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfedge.report import rows
from tfedge.report.table import plain_table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType


def inspection(found: Mapping[str, Any]) -> Group:
    """Tables of an inspected model or file.

    Args:
        found: What `api.inspect` returned.

    Returns:
        Something to print.
    """
    from rich.console import Group

    parts = {"keras": _keras, "tflite": _tflite}.get(str(found["kind"]), _serving)(found)
    return Group(*parts)


def _line(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)


def _keras(found: Mapping[str, Any]) -> list[RenderableType]:
    kind = "quantize-aware Keras model" if found["quantized"] else "Keras model"
    out = [
        _line(
            f"{kind} '{found['name']}': {found['params']:,} parameters, "
            f"{found['macs']:,} MACs, {len(found['layers'])} layers"
        )
    ]
    header = ["layer", "type", "params", "MACs", "output"]
    out.append(plain_table("Layers", header, [_layer(layer) for layer in found["layers"]]))
    if found["groups"]:
        header = ["group", "channels", "MACs", "MACs saved by 1 %", "params saved by 1 %"]
        header += ["layers", "note"]
        out.append(plain_table("Channel groups", header, [_group(g) for g in found["groups"]]))
    if found.get("blocks"):
        header = ["block (the layer that adds)", "MACs", "layers that go with it"]
        cells = [[b["name"], b["macs"], " ".join(b["layers"])] for b in found["blocks"]]
        out.append(plain_table("Residual blocks that can be removed", header, cells))
    if found["uncounted"]:
        out.append(_line(f"MACs do not count (no formula): {', '.join(found['uncounted'])}"))
    return out


def _layer(layer: Mapping[str, Any]) -> list[Any]:
    shape = ", ".join("?" if d is None else str(d) for d in layer["output_shape"])
    return [layer["name"], layer["kind"], layer["params"], layer["macs"], f"({shape})"]


def _group(group: Mapping[str, Any]) -> list[Any]:
    note = f"cannot be pruned: {group['reason']}" if group["blocked"] else ""
    saved = [f"{group[f'{what}_saved_per_percent']:.2f} %" for what in ("macs", "params")]
    layers = " ".join(group["producers"]) + " -> " + (" ".join(group["consumers"]) or "output")
    return [group["name"], group["channels"], group["macs"], *saved, layers, note]


def _tflite(found: Mapping[str, Any]) -> list[RenderableType]:
    scheme = found["scheme"] or "unknown scheme"
    out = [
        _line(
            f"TFLite file: {rows.bytes_text(found['bytes'])} ({found['bytes']:,} bytes), {scheme}, "
            f"{found['delegated_ops']} of {found['total_ops']} ops delegated to XNNPACK"
        )
    ]
    for side in ("inputs", "outputs"):
        out += [_line(f"{side[:-1]} {_tensor(t)}") for t in found[side]]
    header = ["#", "op", "Keras layer", "types", "XNNPACK", "reason"]
    cells = [_op(row) for row in found["certificate"]]
    out.append(plain_table("Certificate", header, cells))
    sizes = [[name or "(not of a layer)", size] for name, size in found["size_by_layer"].items()]
    out.append(plain_table("Constants by layer", ["layer", "bytes"], sizes))
    return out


def _tensor(tensor: Mapping[str, Any]) -> str:
    text = f"'{tensor['name']}' {tensor['shape']} {tensor['dtype']}"
    scale, zero = _first(tensor.get("scale")), _first(tensor.get("zero_point"))
    return text if scale is None else f"{text}, real = {scale:.6g} * (q - {zero})"


def _first(value: Any) -> Any:
    """A per-tensor constant, written as a number or a list of one; None where there is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value[0] if value else None
    return value


def _op(row: Mapping[str, Any]) -> list[Any]:
    mark = "yes" if row["delegated"] else "no"
    return [row["index"], row["op"], row["layer"], row["types"], mark, row["reason"]]


def _serving(found: Mapping[str, Any]) -> list[RenderableType]:
    inputs = ", ".join(f"'{k}' {v}" for k, v in found["inputs"].items())
    outputs = ", ".join(map(str, found["outputs"]))
    return [
        _line(f"SavedModel '{found['name']}' without Keras layers: inputs {inputs}"),
        _line(f"outputs {outputs}"),
        _line("It can be converted, verified and measured; not pruned or trained."),
    ]
