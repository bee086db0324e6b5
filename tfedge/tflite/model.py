"""A TFLite file as an object: its bytes, what it is for, and what it runs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import InputError
from tfedge.files import write_atomic
from tfedge.record import CertificateRow
from tfedge.tflite import flatbuffer
from tfedge.tflite.certificate import certify
from tfedge.tflite.ends import Inputs
from tfedge.tflite.interpreter import Interpreter
from tfedge.tflite.layers import size_by_layer
from tfedge.tflite.tensors import TensorSpec

_SCHEME, _LAYERS = "scheme", "layers"


@dataclass(frozen=True)
class TFLiteModel:
    """A TFLite file with what tfedge knows of it.

    Make one with `from_bytes` or `load`, which check the file. Two are equal where their bytes are.

    Attributes:
        data: The whole file; `scheme`, `layers` and `meta` are stored inside it.
        scheme: Name of the scheme that it was made for, or "" where it is unknown.
        meta: Plain JSON values, for example {"labels": [...], "preprocessing": {...}}.
        layers: Names of the Keras model's layers in topological order, or empty.
    """

    data: bytes = field(repr=False)
    scheme: str = field(default="", compare=False)
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)
    layers: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        scheme: str | None = None,
        meta: Mapping[str, Any] | None = None,
        layers: Sequence[str] | None = None,
        certificate: Sequence[CertificateRow] | None = None,
    ) -> TFLiteModel:
        """Takes a file's bytes; what is given is stored in the file, the rest is read from it.

        Args:
            data: The whole file.
            scheme: Scheme name; None keeps what the file says.
            meta: Plain JSON values (but "scheme" and "layers"); None keeps what the file says.
            layers: Keras layer names in topological order; None keeps what the file says.
            certificate: The file's rows where `certify` has been run already; not stored, because
                who runs an op depends on the machine.

        Raises:
            InputError: The data is no TFLite file, or `meta` holds what JSON has not.
        """
        data = bytes(data)
        stored = flatbuffer.get_metadata(data)
        news = dict(stored)
        if meta is not None:
            news = {**{k: v for k, v in stored.items() if k in (_SCHEME, _LAYERS)}, **meta}
        if scheme is not None:
            news[_SCHEME] = scheme
        if layers is not None:
            news[_LAYERS] = list(layers)
        if news != stored:
            data = flatbuffer.set_metadata(data, news)
        model = cls(
            data,
            str(news.get(_SCHEME, "")),
            {k: v for k, v in news.items() if k not in (_SCHEME, _LAYERS)},
            tuple(str(name) for name in news.get(_LAYERS) or ()),
        )
        if certificate is not None:
            model.__dict__["certificate"] = list(certificate)
        return model

    @classmethod
    def load(cls, path: str | Path) -> TFLiteModel:
        """Reads a .tflite file.

        Args:
            path: The file.

        Raises:
            InputError: It is not there, cannot be read, or is no TFLite file.
        """
        return cls.from_bytes(read_file(path))

    def save(self, path: str | Path) -> None:
        """Writes the file in one step: an interrupt or a full disk leaves an older one as it was.

        Args:
            path: Where to; its folder must exist.

        Raises:
            InputError: The folder is not there.
            OSError: The disk is full, or the folder cannot be written to.
        """
        write_atomic(path, self.data)

    @cached_property
    def certificate(self) -> list[CertificateRow]:
        """Every op with its types and who runs it; see `certify`. Made when first asked for.

        Raises:
            ConversionError: The file does not run.
        """
        return certify(self.data, self.layers)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The file's inputs, in its order, under the Keras names where it has them."""
        return self._interpreter.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The file's outputs, likewise."""
        return self._interpreter.outputs

    def size_by_layer(self) -> dict[str, int]:
        """Bytes of constants by Keras layer; see `tfedge.tflite.layers.size_by_layer`."""
        return size_by_layer(flatbuffer.read(self.data), self.layers)

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Real values in, real values out, for any number of samples; see `Interpreter.predict`.

        Args:
            inputs: An array (one-input files), a dict by input name, or a list in order.

        Returns:
            Outputs [N, ...] by name.
        """
        return self._interpreter.predict(inputs)

    @cached_property
    def _interpreter(self) -> Interpreter:
        return Interpreter(self.data)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the loaded runtime behind when pickled or copied."""
        return {k: v for k, v in self.__dict__.items() if k != "_interpreter"}


def read_file(path: str | Path) -> bytes:
    """Reads a .tflite file's bytes and checks that they start like one.

    Raises:
        InputError: It is not there, cannot be read, or does not start like a TFLite file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{path}'", error.strerror or str(error)) from error
    if data[4:8] != flatbuffer.IDENTIFIER:
        raise InputError(
            f"'{path}' is not a TFLite file",
            f"{len(data)} bytes, start {data[:8]!r}",
            "Give a .tflite file",
        )
    return data
