"""The errors that tfedge raises: what was wrong, what was found, what to do.

Every error meant for a user is a `TfedgeError`. The command line prints its one line and exits with
status 1; in Python it is an ordinary exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TfedgeError(Exception):
    """Base of all errors that a user can cause or mend.

    Args:
        what: What was wrong, a sentence without its full stop.
        found: What was found instead (the offending value), or empty.
        fix: What to do about it, or empty.
    """

    def __init__(self, what: str, found: str = "", fix: str = "") -> None:
        self.what, self.found, self.fix = what, found, fix
        parts = [what.rstrip(".") + "."]
        if found:
            parts.append(f"Found: {found.rstrip('.')}.")
        if fix:
            parts.append(fix if fix.endswith(("?", ".")) else f"{fix}.")
        super().__init__(" ".join(parts))

    def __reduce__(self) -> tuple:
        """Pickle by the three parts (errors cross process borders)."""
        return type(self), (self.what, self.found, self.fix)


class InputError(TfedgeError):
    """A flag, argument, file or array that cannot be used."""


class RecipeError(InputError):
    """A recipe file with an unknown key, a bad value or stages in an order that loses work."""


class ModelError(TfedgeError):
    """A model that this operation cannot take (subclassed, quantized already, serving-only...)."""


class PlanError(TfedgeError):
    """A pruning request or plan that cannot be carried out; the model is untouched."""


class ConversionError(TfedgeError):
    """A TFLite file that cannot be made, does not run, or holds float where it must not."""


class TargetError(TfedgeError):
    """A target that is unknown, unreachable, or failed to run a model."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns "Did you mean 'x'?" for the nearest choice, else "Choose one of: ...".

    Args:
        word: What the user wrote.
        choices: The allowed words.
    """
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"Choose one of: {shown}"
