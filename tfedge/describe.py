"""What `inspect` tells: a Keras model with its channel groups, or a TFLite file with its ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.bridge import ServingModel
from tfedge.errors import ModelError
from tfedge.profile import profile
from tfedge.prune.costs import Costs
from tfedge.record import to_json
from tfedge.tflite import TFLiteModel


def model(keras_model: Any) -> dict[str, Any]:
    """Describes a Keras model; see `tfedge.api.inspect`."""
    if isinstance(keras_model, ServingModel):
        return {
            "kind": "serving",
            "name": keras_model.name,
            "inputs": {k: list(v.shape) for k, v in keras_model.inputs.items()},
            "outputs": keras_model.output_names,
        }
    from tfedge.graph import analyse, residual_blocks
    from tfedge.quantized import is_quantized

    costs = profile(keras_model)
    macs = {layer.name: layer.macs for layer in costs.layers}
    groups: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    if not is_quantized(keras_model):
        analysis = analyse(keras_model)
        table = Costs(analysis)
        full = {what: table.of({}, what) for what in ("macs", "params")}
        for i, group in enumerate(analysis.groups):
            produced = sum(macs.get(name, 0) for name in group.producers)
            groups.append({**_group(table, full, i, group), "macs": produced})
        for block in residual_blocks(analysis.graph):
            saved = sum(macs.get(name, 0) for name in block.layers)
            blocks.append({"name": block.name, "layers": block.layers, "macs": saved})
    return to_json(
        {
            "kind": "keras",
            "name": keras_model.name,
            "quantized": is_quantized(keras_model),
            "params": costs.params,
            "macs": costs.macs,
            "uncounted": costs.uncounted,
            "layers": costs.layers,
            "groups": groups,
            "blocks": blocks,
        }
    )


def _group(table: Costs, full: dict[str, float], i: int, group: Any) -> dict[str, Any]:
    """A group with what a whole percent of its channels would save, in percent of the model."""
    row = {
        "name": group.name,
        "channels": group.channels,
        "blocked": bool(group.blocked),
        "reason": group.blocked,
        "producers": group.producers,
        "consumers": group.consumers,
        "counted_by": group.counted_by,
    }
    for what, whole in full.items():
        saved = 0.0
        if not group.blocked and group.channels > 1:
            half = np.arange(group.channels) < group.channels // 2
            share = half.sum() / group.channels
            saved = (whole - table.of({i: half}, what)) / max(whole, 1) / share
        row[f"{what}_saved_per_percent"] = round(saved, 5)
    return row


def file(tflite: TFLiteModel) -> dict[str, Any]:
    """Describes a TFLite file; see `tfedge.api.inspect`."""
    rows = tflite.certificate
    if rows is None:
        raise ModelError("the file has no certificate")
    return to_json(
        {
            "kind": "tflite",
            "bytes": len(tflite.data),
            "scheme": tflite.scheme,
            "inputs": tflite.inputs,
            "outputs": tflite.outputs,
            "delegated_ops": sum(r.delegated for r in rows),
            "total_ops": len(rows),
            "certificate": rows,
            "size_by_layer": tflite.size_by_layer(),
            "metadata": tflite.meta,
        }
    )
