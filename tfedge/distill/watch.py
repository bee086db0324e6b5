"""Sees what some layers give while their model is called, in either Keras."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Watch:
    """Records the outputs of layers, those inside nested models too.

    The model is called as it stands (so a frozen batch norm stays frozen, and no second graph is
    built); while it is, the watched layers' `call` also notes what it returns. Each thread sees its
    own call: tf.distribute traces one replica a thread, and switches between them.

    Args:
        layers: Layers by name; each is called once by its model.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self._layers = dict(layers)
        self._lock = threading.Lock()
        self._users = 0
        self._seen = threading.local()
        self._own: dict[str, Any] = {}

    @contextmanager
    def seeing(self) -> Iterator[dict[str, Any]]:
        """Yields a dict that holds the outputs by layer name once the model was called."""
        found: dict[str, Any] = {}
        before = getattr(self._seen, "found", None)
        self._seen.found = found
        with self._lock:
            if not self._users:
                self._install()
            self._users += 1
        try:
            yield found
        finally:
            self._seen.found = before
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._remove()

    def _install(self) -> None:
        for name, layer in self._layers.items():
            self._own[name] = vars(layer).get("call")
            # Past the setattr of Keras, which would track the function.
            object.__setattr__(layer, "call", self._noting(name, layer.call))

    def _remove(self) -> None:
        for name, layer in self._layers.items():
            if self._own[name] is None:
                object.__delattr__(layer, "call")
            else:
                object.__setattr__(layer, "call", self._own[name])

    def _noting(self, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = own(*args, **kwargs)
            found = getattr(self._seen, "found", None)
            if found is not None:
                found[name] = result
            return result

        return call
