"""Modules of the user: tasks, layers, functions."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tfedge.errors import InputError, TfedgeError


def import_code(name: str, whose: str) -> ModuleType:
    """Imports the user's module, by name from the working directory or by file.

    Args:
        name: "package.module", or a path that ends in ".py".
        whose: What the module is for, for messages: "the task's".

    Raises:
        InputError: It is not there, or fails while it loads.
    """
    try:
        if name.endswith(".py"):
            path = Path(name).expanduser()
            found = importlib.util.spec_from_file_location(path.stem, path)
            if not path.is_file() or found is None or found.loader is None:
                raise InputError(f"{whose} file was not found", f"'{name}'")
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
            return module
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except TfedgeError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            fix = f"Run from the folder that holds {name.split('.')[0]}.py, or give its file"
            raise InputError(f"{whose} module was not found", f"'{name}'", fix) from error
        raise InputError(f"importing '{name}' failed", str(error)) from error
    except Exception as error:  # whatever the user's module raises while it loads
        found_text = f"{type(error).__name__}: {error}"
        raise InputError(f"importing '{name}' failed", found_text) from error
