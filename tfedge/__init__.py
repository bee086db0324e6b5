"""tfedge: make a Keras model small and fast on ARM devices, and prove that it is still right.

`import tfedge` is cheap: the verbs and the subpackages are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfedge._version import __version__

if TYPE_CHECKING:
    from tfedge import bridge, distill, errors, graph, prune, quant
    from tfedge.api import benchmark, convert, doctor, inspect, load_model, verify, verify_ops
    from tfedge.mixed import allocate
    from tfedge.pipeline import compress

_VERBS = {
    "allocate": "tfedge.mixed",
    "benchmark": "tfedge.api",
    "compress": "tfedge.pipeline",
    "convert": "tfedge.api",
    "doctor": "tfedge.api",
    "inspect": "tfedge.api",
    "load_model": "tfedge.api",
    "verify": "tfedge.api",
    "verify_ops": "tfedge.api",
}
_PACKAGES = ("bridge", "distill", "errors", "graph", "prune", "quant")

__all__ = [  # noqa: F822
    "__version__",
    "allocate",
    "benchmark",
    "bridge",
    "compress",
    "convert",
    "distill",
    "doctor",
    "errors",
    "graph",
    "inspect",
    "load_model",
    "prune",
    "quant",
    "verify",
    "verify_ops",
]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        value = getattr(importlib.import_module(_VERBS[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"tfedge.{name}")
    else:
        raise AttributeError(f"module 'tfedge' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
