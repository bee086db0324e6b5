"""The picture of a drift: all layers, the worst marked, finite bars."""

import math
import xml.etree.ElementTree as ET

import pytest

from tfedge.errors import InputError
from tfedge.record import Drift, LayerDrift
from tfedge.report.drift_plot import drift_svg


def drift(*ratios):
    layers = tuple(LayerDrift(f"a<{i}>", f"t{i}", r, i, 1.0) for i, r in enumerate(ratios))
    return Drift(1, 1.0, 30.0, 1.0, "a<0>", "a<1>", samples=4, layers=layers)


def test_every_layer_has_a_bar_and_the_worst_its_colour():
    root = ET.fromstring(drift_svg(drift(40.0, -3.0, math.inf), 'm & "n"'))
    bars = [e for e in root.iter() if e.tag.endswith("rect")][1:]
    widths = [float(e.get("width")) for e in bars]
    assert len(bars) == 3
    assert widths[1] < widths[0] <= widths[2]
    assert len({e.get("fill") for e in bars}) == 3
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert {"a<0>", "a<1>", "a<2>", 'm & "n"', "equal, 2 steps"} <= set(texts)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(InputError, match="nothing to draw"):
        drift_svg(drift(), "m")
