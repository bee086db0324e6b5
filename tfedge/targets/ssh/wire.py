"""Requests and replies as one zip file each; equal arrays travel once."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_INDEX = "index.json"
Item = tuple[Mapping[str, Any], "Mapping[str, np.ndarray]"]
"""Plain JSON values, and arrays by name."""


def pack(items: Sequence[Item]) -> bytes:
    """Packs items.

    Args:
        items: Values and arrays of each.
    """
    import numpy as np

    out, index = io.BytesIO(), []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        known: set[str] = set()
        for values, arrays in items:
            names: dict[str, str] = {}
            for name, array in arrays.items():
                one = io.BytesIO()
                np.save(one, np.ascontiguousarray(array), allow_pickle=False)
                key = hashlib.sha256(one.getvalue()).hexdigest()
                names[name] = key
                if key not in known:
                    known.add(key)
                    packed.writestr(key, one.getvalue())
            index.append({"values": dict(values), "arrays": names})
        packed.writestr(_INDEX, json.dumps(index, allow_nan=False))
    return out.getvalue()


def unpack(data: bytes) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Reads what `pack` gave.

    Raises:
        ValueError: It is damaged.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            index = json.loads(packed.read(_INDEX))

            def load(key: str) -> np.ndarray:
                found: np.ndarray = np.load(io.BytesIO(packed.read(key)), allow_pickle=False)
                return found

            return [
                (item["values"], {name: load(key) for name, key in item["arrays"].items()})
                for item in index
            ]
    except (zipfile.BadZipFile, KeyError, TypeError) as error:
        raise ValueError(f"a damaged answer: {error}") from error
