"""Obtains Fashion-MNIST: from the cache, a Debian package, a system-wide install, or Keras."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfedge import shell
from tfedge.errors import InputError, TfedgeError
from tfedge.progress import working

FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
PACKAGE = "dataset-fashion-mnist"
SYSTEM = Path("/usr/share/datasets/fashion-mnist")
# sha256 of the decompressed bytes: a truncated or altered file is found whatever packed it.
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
UPDATE_SECONDS = 180
DOWNLOAD_SECONDS = 600
STALL_SECONDS = 30

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class _UnusableError(Exception):
    """One way of obtaining the data did not work; the text says why."""


def cache_root() -> Path:
    """The folder for downloads: $TFEDGE_CACHE, else ~/.cache/tfedge."""
    given = os.environ.get("TFEDGE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "tfedge"


def fashion_mnist(cache_dir: str | Path | None = None) -> Arrays:
    """Returns Fashion-MNIST (Xiao et al. 2017), obtaining it on first use.

    Tried in this order: the copy in the cache; the Debian package `dataset-fashion-mnist` by
    `apt-get download` and `dpkg -x` (no root; where the host's package lists do not serve, they are
    fetched into the cache, and the host's are left alone); its system-wide install; Keras's own
    download. Every file's decompressed bytes are checked by sha256.

    Args:
        cache_dir: Where downloads are kept; None means `cache_root()`.

    Returns:
        (x_train uint8 [60000, 28, 28], y_train uint8 [60000], x_test uint8 [10000, 28, 28],
        y_test uint8 [10000]).

    Raises:
        InputError: Nothing worked; the one line names every try and why it failed.
    """
    root = (cache_root() if cache_dir is None else Path(cache_dir).expanduser()).absolute()
    folder = root / "fashion-mnist"
    ways: tuple[tuple[str, Callable[[Path], Arrays]], ...] = (
        ("cache", _from_cache),
        ("apt-get download", _from_package),
        ("system-wide install", _from_system),
        ("Keras download", _from_keras),
    )
    reasons = []
    for name, way in ways:
        try:
            return way(folder)
        except _UnusableError as error:
            reasons.append(f"{name}: {error}")
        except OSError as error:
            reasons.append(f"{name}: {error.strerror or error}")
    raise InputError(
        "Fashion-MNIST could not be obtained",
        "; ".join(reasons),
        f"Connect to a network, install the package {PACKAGE}, or put its four files in {folder}",
    )


def _from_cache(folder: Path) -> Arrays:
    if not folder.is_dir():
        raise _UnusableError("empty")
    return _read(folder)


def _from_package(folder: Path) -> Arrays:
    """Downloads and unpacks the package in a temporary folder, then moves the files in place."""
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise _UnusableError(f"{program} is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        working("Obtaining Fashion-MNIST (31 MB)"),
        tempfile.TemporaryDirectory(dir=folder.parent) as name,
    ):
        temporary = Path(name)
        package = _download(temporary)
        unpacked = temporary / "unpacked"
        _run(["dpkg", "-x", str(package), str(unpacked)], temporary)
        files = unpacked / "usr/share/datasets/fashion-mnist"
        arrays = _read(files)
        folder.mkdir(exist_ok=True)
        for file in SHA256:
            (files / file).replace(folder / file)
    return arrays


def _download(temporary: Path) -> Path:
    """Runs apt-get download with the host's lists, then with freshly fetched private ones."""
    # As root, apt would hand the work to a user who may not write here.
    base = ["apt-get", "-o", "APT::Sandbox::User=root"]
    try:
        _run([*base, "download", PACKAGE], temporary)
    except _UnusableError as first:
        private = [*base, *_private_state(temporary)]
        failed = ""
        try:
            _run([*private, "update"], temporary, UPDATE_SECONDS)
        except _UnusableError as error:
            # One unreachable source of several fails the update, yet the others may serve.
            failed = f"; update: {error}"
        try:
            _run([*private, "download", PACKAGE], temporary)
        except _UnusableError as second:
            again = "" if str(second) == str(first) else f"; with fresh lists: {second}"
            raise _UnusableError(f"{first}{failed}{again}") from second
    found = sorted(temporary.glob("*.deb"))
    if not found:
        raise _UnusableError("apt-get left no package")
    return found[0]


def _private_state(temporary: Path) -> list[str]:
    """Options that keep apt's state and cache in a folder of ours, with the host's sources."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (temporary / part).mkdir(parents=True)
    status = temporary / "state" / "status"
    status.touch()
    options = {
        "Dir::State": temporary / "state",
        "Dir::State::Lists": temporary / "state" / "lists",
        "Dir::State::status": status,
        "Dir::Cache": temporary / "cache",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def _run(argv: list[str], cwd: Path, timeout: float = DOWNLOAD_SECONDS) -> None:
    """Runs a command; raises _UnusableError with its last line of complaint."""
    try:
        done = shell.run(argv, timeout=timeout, cwd=cwd)
    except (TfedgeError, OSError) as error:
        raise _UnusableError(str(error)) from error
    if done.code != 0:
        lines = done.err.decode(errors="replace").strip().splitlines()
        said = [line for line in lines if line.startswith("E:")] or lines
        raise _UnusableError(said[0].strip() if said else f"{argv[0]} ended with {done.code}")


def _from_system(folder: Path) -> Arrays:
    if not SYSTEM.is_dir():
        raise _UnusableError(f"{SYSTEM} does not exist")
    return _read(SYSTEM)


def _from_keras(folder: Path) -> Arrays:
    """Lets Keras download, checks the bytes as they stand in the original files, and keeps them."""
    from tfedge._keras import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception for whatever the network did
        raise _UnusableError(" ".join(str(error).split())) from error
    finally:
        socket.setdefaulttimeout(before)
    packed = {
        name: _idx(array)
        for name, array in zip(SHA256, (x_train, y_train, x_test, y_test), strict=True)
    }
    for name, content in packed.items():
        if hashlib.sha256(content).hexdigest() != SHA256[name]:
            raise _UnusableError(f"{name} has the wrong checksum")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in packed.items():
        part = folder / f"{name}.part"
        part.write_bytes(gzip.compress(content, 1))
        part.replace(folder / name)
    return x_train, y_train, x_test, y_test


def _idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file: magic (type 8, rank), big-endian sizes, values."""
    header = np.array([0x0800 + array.ndim, *array.shape], ">i4").tobytes()
    return header + np.ascontiguousarray(array, np.uint8).tobytes()


def _read(folder: Path) -> Arrays:
    """Reads and checks the four files."""
    arrays = []
    for name, digest in SHA256.items():
        path = folder / name
        try:
            content = gzip.decompress(path.read_bytes())
        except FileNotFoundError as error:
            raise _UnusableError(f"{path} is missing") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _UnusableError(f"{path} is damaged or truncated") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise _UnusableError(f"{path} has the wrong checksum")
        rank = content[3]
        shape = np.frombuffer(content, ">i4", rank, offset=4)
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape))
    return arrays[0], arrays[1], arrays[2], arrays[3]
