"""Data files: numpy archives read without unpickling, and folders of images read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfedge.data import LABEL_KEYS, UNNAMED_KEYS, InputSpec
from tfedge.errors import InputError, did_you_mean

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Reads an .npz (or an .npy, under the key "x") without unpickling anything.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, unreadable, not in numpy's format, or holds objects.
    """
    path = Path(path)
    fix = "Write it with numpy.savez(path, name=array, ...)"
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            return {key: loaded[key] for key in loaded.files}
    except FileNotFoundError as error:
        raise InputError("the data was not found", f"'{path}'") from error
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(
                "this file is no numpy archive, or holds pickled objects, which are never loaded",
                f"'{path}'",
                fix,
            ) from error
        raise InputError("this data file is damaged", f"'{path}': {error}", fix) from error
    except Exception as error:  # zipfile, zlib and OSError: all mean an unreadable file
        raise InputError("this is no readable numpy file", f"'{path}': {error}", fix) from error


def named_arrays(
    path: Path, arrays: dict[str, np.ndarray], specs: Sequence[InputSpec]
) -> dict[str, np.ndarray]:
    """Picks a model's inputs from the arrays of an npz.

    Args:
        path: The file, for messages.
        arrays: Its arrays by key.
        specs: The model's inputs.

    Raises:
        InputError: An input has no array.
    """
    names = [s.name for s in specs]
    inputs = {k: v for k, v in arrays.items() if k in names or k not in LABEL_KEYS}
    if len(specs) == 1 and names[0] not in inputs:
        for key in UNNAMED_KEYS:
            if key in inputs:
                return {names[0]: inputs[key]}
    unknown = [k for k in inputs if k not in names]
    missing = [n for n in names if n not in inputs]
    if missing:
        keys = ", ".join(f"'{k}'" for k in arrays) or "nothing"
        hint = did_you_mean(unknown[0], missing) if unknown else ""
        raise InputError(f"'{path}' lacks the input '{missing[0]}'", f"the keys {keys}", hint)
    return {n: inputs[n] for n in names}


def random_arrays(spec: str, specs: Sequence[InputSpec], seed: int) -> dict[str, np.ndarray]:
    """Makes the samples of "random:N" (see `tfedge.data.load`).

    Args:
        spec: "random:N".
        specs: The model's inputs; all axes but the batch must be fixed.
        seed: Seed of the generator.

    Raises:
        InputError: N is no whole number, or an axis is free.
    """
    count = spec.partition(":")[2]
    if not count.isdecimal() or int(count) < 1:
        raise InputError("random:N needs a whole number N of samples", f"'{spec}'")
    rng = np.random.default_rng(seed)
    return {s.name: _random_array(s, int(count), rng) for s in specs}


def _random_array(spec: InputSpec, count: int, rng: np.random.Generator) -> np.ndarray:
    rest = spec.shape[1:]
    if any(d is None for d in rest):
        raise InputError(
            "random data needs fixed sizes",
            f"{spec.needs} of input '{spec.name}'",
            "Give an .npz with real data",
        )
    shape = (count, *(int(d) for d in rest if d is not None))
    dtype = np.dtype(spec.dtype)
    if dtype.kind not in "biu":
        return rng.random(shape, dtype=np.float32).astype(dtype)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize == 1 else (0, 1)
    if dtype.kind == "b":
        low, high = 0, 1
    return rng.integers(low, high, size=shape, endpoint=True).astype(dtype)


@dataclass(frozen=True)
class ImageFolder:
    """Samples read from image files one at a time; iterate it as often as needed.

    Attributes:
        files: The images, in the order in which they are read.
        spec: The input that they feed: [N, H, W, C], C of 1 (grey), 3 (RGB) or 4 (RGBA).
        scale: Values are pixel * scale + offset.
        offset: See `scale`.
    """

    files: tuple[Path, ...]
    spec: InputSpec
    scale: float
    offset: float

    @classmethod
    def open(
        cls,
        folder: Path,
        specs: Sequence[InputSpec],
        *,
        seed: int = 0,
        scale: float | None = None,
        offset: float = 0.0,
    ) -> ImageFolder:
        """Lists the images below a folder for a model with one image input.

        Args:
            folder: Searched recursively.
            specs: The model's inputs: one, of shape [N, H, W, C].
            seed: Seed of the order.
            scale: None means 1/255 for a float input and 1 for an integer one.
            offset: Added after scaling.

        Raises:
            InputError: No images, or a model that does not take one image.
        """
        spec = specs[0]
        if len(specs) != 1 or len(spec.shape) != 4 or spec.shape[3] not in (1, 3, 4):
            shapes = ", ".join(f"'{s.name}' {s.needs}" for s in specs)
            raise InputError("a folder of images feeds one image input only", shapes, "Use an .npz")
        if None in spec.shape[1:3]:
            raise InputError("images need a fixed input size", f"'{spec.name}' {spec.needs}")
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            kinds = ", ".join(IMAGE_SUFFIXES)
            raise InputError("no images in this folder", f"'{folder}'", f"Read are {kinds}")
        order = np.random.default_rng(seed).permutation(len(found))
        if scale is None:
            scale = 1.0 if np.dtype(spec.dtype).kind in "iu" else 1 / 255
        return cls(tuple(found[i] for i in order), spec, scale, offset)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields {input name: array [H, W, C]}, decoded and resized (bilinear)."""
        decode = _pillow()
        for path in self.files:
            pixels = decode(path, self.spec)
            value = pixels.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
            yield {self.spec.name: value}


def _pillow() -> Callable[[Path, InputSpec], np.ndarray]:
    """Returns a decoder: path -> uint8 array [H, W, C]. Pillow is needed only here."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            "reading images needs Pillow", "not installed", "pip install pillow"
        ) from error

    def decode(path: Path, spec: InputSpec) -> np.ndarray:
        height, width, channels = spec.shape[1:]
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[int(channels or 0)]
        try:
            with Image.open(path) as image:
                resized = image.convert(mode).resize(
                    (int(width or 0), int(height or 0)), Image.Resampling.BILINEAR
                )
                return np.asarray(resized, np.uint8).reshape(resized.height, resized.width, -1)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError("this image cannot be read", f"'{path}': {error}") from error

    return decode
