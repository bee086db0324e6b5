"""Targets that need a package which tfedge does not bring along."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from tfedge.errors import TargetError

PACKAGES = {"ethosu": "ethos-u-vela", "tflm": "tflite-micro"}
"""The package that a family of targets needs, by the name of tfedge's extra."""


def package_version(extra: str) -> str:
    """Version of the package behind an extra; nothing of it is imported.

    Raises:
        TargetError: It is not installed; the message says how to.
    """
    package = PACKAGES[extra]
    try:
        return version(package)
    except PackageNotFoundError:
        found, fix = f"{package} is not installed", f"Run: pip install 'tfedge[{extra}]'"
        raise TargetError(f"the target {extra} needs another package", found, fix) from None


def state(extra: str) -> str:
    """What `tfedge target list` says of it: "ready", or what to run."""
    try:
        package_version(extra)
    except TargetError as error:
        return error.fix
    return "ready"
