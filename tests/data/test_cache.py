"""The cache of decoded arrays: used while its source stands, never believed when damaged, no obstacle."""

import logging
import os

import numpy as np
import pytest

from kd_jax import data
from kd_jax.data import cache, tfds
from kd_jax.errors import InputError
from tests.data.test_data import Trap, member, plant, same
from tests.data.test_tfds import colour, prepare


@pytest.fixture
def cached(tmp_path):
    """A prepared set, loaded once: (the Dataset, load it again, its cache file, its folder)."""
    folder = prepare(tmp_path / "data")

    def load():
        return data.load("cifar100", tmp_path / "data", tmp_path / "cache")

    dataset = load()
    (file,) = (tmp_path / "cache").iterdir()
    return dataset, load, file, folder


def test_cache_is_used(cached, monkeypatch):
    dataset, load, _, _ = cached
    monkeypatch.setattr(tfds, "decode", None)
    again = load()
    assert same(again, dataset) and again is not dataset
    assert (again.fingerprint, again.class_names) == (dataset.fingerprint, dataset.class_names)
    assert not again.train_images.flags.writeable


def test_cache_follows_its_source(cached, caplog):
    _, load, file, folder = cached
    for path in sorted(folder.iterdir()):
        path.unlink()
    folder.rmdir()
    prepare(folder.parents[1], splits={"train": colour(31, seed=5), "test": colour(9)})
    assert np.array_equal(load().train_images, colour(31, seed=5)[0])
    assert list(file.parent.iterdir()) == [file] and not caplog.records


def test_damaged_cache_is_made_anew(cached, caplog):
    dataset, load, file, _ = cached
    whole = file.read_bytes()
    held = dict(np.load(file))
    wrong = held | {"train_labels": held["train_labels"][::-1]}
    np.savez(file, **wrong)  # A sound .npz, of other arrays than those it was sealed with.
    resealed = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    for content in (resealed, flipped, whole[:-100], whole[: len(whole) // 2], b"", b"x" * 1000):
        file.write_bytes(content)
        caplog.clear()
        assert same(load(), dataset)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and "damaged and are made anew" in record.getMessage()
        assert file.read_bytes() == whole


def test_every_flipped_byte_of_a_cache_is_seen(cached):
    dataset, _, file, _ = cached
    whole = file.read_bytes()
    source = str(np.load(file)["source"])
    expected = [getattr(dataset, key) for key in cache.ARRAYS]
    random = np.random.RandomState(0)
    for place in random.randint(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.randint(8)
        file.write_bytes(flipped)
        held = cache.read(file, source)
        if held is not None:
            arrays, class_names, *_ = held
            assert all(map(np.array_equal, arrays, expected)) and class_names == dataset.class_names


def test_cache_is_never_unpickled(cached, tmp_path):
    dataset, load, file, _ = cached
    trap = member(np.array([Trap(tmp_path / "sprung")], object))
    for key in (*cache.ARRAYS, "class_names", "source", "digest"):
        plant(file, **({name: member(array) for name, array in np.load(file).items()} | {key: trap}))
        assert same(load(), dataset)
    assert not (tmp_path / "sprung").exists()


def test_cache_that_cannot_be_written(tmp_path, caplog, monkeypatch):
    prepare(tmp_path / "data")
    (tmp_path / "file").touch()
    caplog.set_level(logging.INFO, "kd_jax.data.cache")
    monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "file" / "folder"))
    assert data.load("cifar100", tmp_path / "data").num_classes == 10
    assert "are not cached" in caplog.text


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    prepare(tmp_path / "data")
    monkeypatch.setattr(np, "savez", full)
    assert data.load("cifar100", tmp_path / "data", tmp_path / "cache").num_classes == 10
    assert not list((tmp_path / "cache").iterdir())


def test_cache_folder(monkeypatch, tmp_path):
    assert cache.root(tmp_path) == tmp_path
    monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "a"))
    assert cache.root() == tmp_path / "a"
    monkeypatch.delenv("KD_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache.root() == tmp_path / "b" / "kd_jax" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / ".cache" / "kd_jax" / "data"


def test_memory_is_known():
    assert 2**26 < cache._available_memory() < 2**50


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "set.npz")
    with pytest.raises(InputError, match="expected a regular file"):
        data.load(tmp_path / "set.npz")
