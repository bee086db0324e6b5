"""Obtaining Fashion-MNIST: the order of the tries, and every way in which they fail."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest

from tfedge import datasets
from tfedge.errors import InputError

LABELS = ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


@pytest.fixture
def small(monkeypatch):
    """Tiny files in the real format, with their checksums in place of the real ones."""
    rng = np.random.default_rng(0)
    arrays, digests, packed = [], {}, {}
    for name in datasets.SHA256:
        shape = (5,) if name in LABELS else (5, 28, 28)
        array = rng.integers(0, 10, shape, dtype=np.uint8)
        raw = bytes([0, 0, 8, array.ndim]) + np.array(shape, ">u4").tobytes() + array.tobytes()
        arrays.append(array)
        digests[name] = hashlib.sha256(raw).hexdigest()
        packed[name] = gzip.compress(raw)
    monkeypatch.setattr(datasets, "SHA256", digests)
    return arrays, packed


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """No apt, no system-wide install, no network."""
    monkeypatch.setattr(datasets, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(datasets.shutil, "which", lambda name: None)

    def load_data():
        raise Exception("URL fetch failure:\n no route")

    from tfedge._keras import keras

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", load_data)
    return tmp_path


def _write(folder, packed):
    folder.mkdir(parents=True)
    for name, content in packed.items():
        (folder / name).write_bytes(content)


def _apt(monkeypatch, packed, *, lists_empty=False, update_fails=False):
    """A machine with apt-get and dpkg; returns the list of what was run."""
    ran = []
    monkeypatch.setattr(datasets.shutil, "which", lambda name: f"/usr/bin/{name}")

    def run(argv, *, timeout=None, cwd=None):
        ran.append(argv)
        private = any(a.startswith("Dir::State::Lists=") for a in argv)
        if "update" in argv:
            assert private
            return datasets.shell.Finished(100 if update_fails else 0, b"", b"E: one failed\n")
        if "download" in argv:
            if lists_empty and not (private and any("update" in r for r in ran)):
                return datasets.shell.Finished(100, b"", b"W: x\nE: Unable to locate package\n")
            (cwd / "dataset.deb").write_bytes(b"deb")
        if argv[0] == "dpkg":
            _write(cwd / "unpacked/usr/share/datasets/fashion-mnist", packed)
        return datasets.shell.Finished(0, b"", b"")

    monkeypatch.setattr(datasets.shell, "run", run)
    return ran


def _check(got, arrays):
    for one, two in zip(got, arrays, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == np.uint8


def test_cached_copy_comes_first(small, nothing, monkeypatch):
    arrays, packed = small
    _write(nothing / "c" / "fashion-mnist", packed)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
    monkeypatch.setenv("TFEDGE_CACHE", str(nothing / "c"))
    _check(datasets.fashion_mnist(), arrays)


def test_package_and_then_cache(small, nothing, monkeypatch):
    arrays, packed = small
    ran = _apt(monkeypatch, packed)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
    assert len(ran) == 2
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
    assert len(ran) == 2
    assert [p.name for p in (nothing / "c").iterdir()] == ["fashion-mnist"]


@pytest.mark.parametrize("update_fails", [False, True])
def test_empty_lists_are_fetched_privately(small, nothing, monkeypatch, update_fails):
    arrays, packed = small
    ran = _apt(monkeypatch, packed, lists_empty=True, update_fails=update_fails)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
    assert [("update" in r, "download" in r) for r in ran] == [
        (False, True),
        (True, False),
        (False, True),
        (False, False),
    ]


def test_system_wide_install(small, nothing):
    arrays, packed = small
    _write(datasets.SYSTEM, packed)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)


def test_keras_comes_last_and_is_kept(small, nothing, monkeypatch):
    arrays, _ = small
    x_train, y_train, x_test, y_test = arrays
    from tfedge._keras import keras

    pairs = (x_train, y_train), (x_test, y_test)
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", lambda: pairs)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "SHA256", {n: _digest(nothing, n) for n in datasets.SHA256})
    _check(datasets.fashion_mnist(nothing / "c"), arrays)


def _digest(folder, name):
    content = gzip.decompress((folder / "c" / "fashion-mnist" / name).read_bytes())
    return hashlib.sha256(content).hexdigest()


def test_all_fail_in_one_line(nothing):
    with pytest.raises(InputError) as caught:
        datasets.fashion_mnist(nothing / "c")
    line = str(caught.value)
    assert "\n" not in line
    for part in ("cache: empty", "apt-get is not installed", "does not exist", "no route"):
        assert part in line


def test_apt_that_fails_names_its_complaint(small, nothing, monkeypatch):
    monkeypatch.setattr(datasets.shutil, "which", lambda name: name)
    failed = datasets.shell.Finished(100, b"", b"W: y\nE: Temporary failure resolving host\n")
    monkeypatch.setattr(datasets.shell, "run", lambda argv, **_: failed)
    with pytest.raises(InputError, match="E: Temporary failure resolving host"):
        datasets.fashion_mnist(nothing / "c")


def test_missing_command_is_a_reason(small, nothing, monkeypatch):
    monkeypatch.setattr(datasets.shutil, "which", lambda name: name)

    def run(argv, **_):
        raise FileNotFoundError(2, "No such file", argv[0])

    monkeypatch.setattr(datasets.shell, "run", run)
    with pytest.raises(InputError, match="apt-get download: .*No such file"):
        datasets.fashion_mnist(nothing / "c")


@pytest.mark.parametrize("harm", ["truncated", "altered", "missing", "no gzip"])
def test_damaged_files_are_found(small, nothing, harm):
    _, packed = small
    folder = nothing / "c" / "fashion-mnist"
    _write(folder, packed)
    path = folder / LABELS[0]
    if harm == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        altered = gzip.compress(gzip.decompress(content)[:-1] + b"\x63")
        made = {"truncated": content[:-9], "altered": altered, "no gzip": b"hello"}
        path.write_bytes(made[harm])
    with pytest.raises(InputError, match="damaged or truncated|wrong checksum|is missing"):
        datasets.fashion_mnist(nothing / "c")


def test_damaged_cache_is_replaced(small, nothing, monkeypatch):
    arrays, packed = small
    _write(nothing / "c" / "fashion-mnist", {**packed, LABELS[1]: b"x"})
    _apt(monkeypatch, packed)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
    monkeypatch.setattr(datasets.shutil, "which", lambda name: None)
    _check(datasets.fashion_mnist(nothing / "c"), arrays)
