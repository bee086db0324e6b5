"""Facts about a run for its report: versions, machine, seed."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform

from tfedge._version import __version__
from tfedge.recipe import Recipe

PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")


def run_facts(recipe: Recipe, task: str) -> dict[str, str]:
    """Collects the facts, as text by name.

    Args:
        recipe: The recipe.
        task: Name of the task.
    """
    facts = {
        "recipe": recipe.name,
        "task": task,
        "seed": str(recipe.seed),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "Python": platform.python_version(),
        "tfedge": __version__,
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts
