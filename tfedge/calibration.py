"""What the verbs do to calibration data: make them up, and see that they were preprocessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfedge.data import InputSpec, stack
from tfedge.errors import InputError

_SYNTHETIC = "synthetic:"


def made_up(model: Any, data: Any, facts: Mapping[str, Any]) -> Any:
    """The data; "synthetic:N" makes them up from the model's batch norms (`quant.synthesize`).

    Args:
        model: The float model, batch norms not folded.
        data: Calibration data of any form.
        facts: The file's metadata: "preprocessing" bounds what is made up.

    Raises:
        InputError: No number of samples.
        ModelError: A model that nothing can be made up for.
    """
    if not (isinstance(data, str) and data.startswith(_SYNTHETIC)):
        return data
    from tfedge import quant

    count = data.removeprefix(_SYNTHETIC)
    if not count.isdecimal() or int(count) < 1:
        raise InputError(
            "made-up calibration needs a number of samples", f"'{data}'", "synthetic:64"
        )
    return quant.synthesize(model, int(count), bounds=_pixel_ends(facts))


def check_preprocessing(data: Any, specs: Sequence[InputSpec], facts: Mapping[str, Any]) -> None:
    """Refuses calibration data that were not preprocessed as the metadata say.

    Args:
        data: Calibration data of any form that can be read again.
        specs: The model's inputs.
        facts: The file's metadata; without "preprocessing" nothing is checked.

    Raises:
        InputError: The data lie outside the range of 8-bit pixels after preprocessing.
    """
    ends = _pixel_ends(facts)
    if ends is None:
        return
    slack = 0.01 * (ends[1] - ends[0])
    for name, values in stack(data, specs, limit=32).items():
        low, high = float(np.min(values)), float(np.max(values))
        if low < ends[0] - slack or high > ends[1] + slack:
            raise InputError(
                f"the calibration data for '{name}' are not preprocessed as the metadata say",
                f"values {low:.3g} to {high:.3g}, expected {ends[0]:.3g} to {ends[1]:.3g}",
                "Apply the preprocessing to the calibration data, or correct the metadata",
            )


def _pixel_ends(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """Smallest and largest input after the preprocessing of 8-bit pixels; None where unknown."""
    rule = facts.get("preprocessing") or {}
    if not isinstance(rule.get("scale"), (int, float)):
        return None
    low, high = sorted((rule.get("offset", 0.0), 255 * rule["scale"] + rule.get("offset", 0.0)))
    return low, high
