"""The arm64 emulator, for tests that run on it."""

from functools import cache

import pytest

from tfedge.errors import TargetError
from tfedge.targets.arm64 import installation


@cache
def _why_not():
    try:
        installation.set_up()
    except TargetError as error:
        return str(error)
    return ""


def needed():
    """Makes the set-up (seconds) where it is not there; skips the test where it cannot be made."""
    if why := _why_not():
        pytest.skip(why)
