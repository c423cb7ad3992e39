"""Datasets against independent references: scikit-learn's own arrays, MNIST's published counts; and every
bad input against the one line that names it."""

import importlib.util
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_jax import data
from kd_jax.data import cache, tfds
from kd_jax.errors import InputError


def same(one: data.Dataset, other: data.Dataset) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in cache.ARRAYS)


# --- digits ---------------------------------------------------------------------------------------------

# Written down once: every comparison between runs, machines and years rests on this split.
DIGITS_FINGERPRINT = "db053974ad8fad8aa1f912c45826a15c70eac2e7b351b321b8a8bec8a448046a"


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.concatenate([digits.train_images, digits.test_images]).reshape(1797, 64)
    assert images.dtype == np.uint8 and (images.min(), images.max()) == (0, 255)
    # Grey level v of 0..16 became the integer nearest to 255 v / 16, so 16 / 255 of it is nearest to v.
    ours = np.column_stack(
        [np.rint(images * (16 / 255)), np.concatenate([digits.train_labels, digits.test_labels])]
    )
    theirs = np.column_stack([pixels, labels])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_digits_come_from_scikit_learns_function_where_its_file_is_elsewhere(monkeypatch):
    import sklearn.datasets  # noqa: F401  # before its place is unknown

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert data.load("digits").fingerprint == DIGITS_FINGERPRINT


def test_digits_split(digits):
    assert digits.train_images.shape == (1297, 8, 8, 1) and digits.test_images.shape == (500, 8, 8, 1)
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    test = np.bincount(digits.test_labels)
    share = (np.bincount(digits.train_labels) + test) * 500 / 1797
    assert np.abs(test - share).max() < 1
    assert (digits.num_classes, digits.class_names) == (10, tuple("0123456789"))
    assert digits.fingerprint == DIGITS_FINGERPRINT


def test_arrays_are_read_only(digits):
    for key in cache.ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(digits, key)[0] = 0


# --- MNIST ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist_is_the_official_one(mnist):
    assert mnist.train_images.shape == (60_000, 28, 28, 1) and mnist.test_images.shape == (10_000, 28, 28, 1)
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.train_labels).tolist() == train
    assert np.bincount(mnist.test_labels).tolist() == test
    # The constants that everyone normalises MNIST with.
    assert mnist.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train_images.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert mnist.class_names == tuple("0123456789")
    assert "tensorflow" not in sys.modules


def test_mnist_comes_from_the_cache(mnist, monkeypatch):
    monkeypatch.setattr(tfds, "decode", None)
    again = data.load("mnist:3.0.1")
    assert same(again, mnist) and again.fingerprint == mnist.fingerprint


# --- CIFAR-10 -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cifar10_is_the_official_one():
    root = Path(os.environ.get("TFDS_DATA_DIR", "nowhere"))
    if not (root / "cifar10").is_dir():
        pytest.skip("no real CIFAR-10: TFDS_DATA_DIR names no folder that holds it")
    cifar = data.load("cifar10")
    assert cifar.train_images.shape == (50_000, 32, 32, 3) and cifar.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(cifar.train_labels).tolist() == [5000] * 10
    assert np.bincount(cifar.test_labels).tolist() == [1000] * 10
    assert cifar.class_names[:4] == ("airplane", "automobile", "bird", "cat")
    # The constants that everyone normalises CIFAR-10 with.
    pixels = cifar.train_images.reshape(-1, 3)
    assert pixels.mean(0) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    assert pixels.std(0) / 255 == pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-4)


# --- .npz -----------------------------------------------------------------------------------------------


def small(**changes: Any) -> dict[str, Any]:
    """Twelve 4x5 images of three classes and six more, a dict of arrays; None leaves one out."""
    random = np.random.RandomState(0)
    arrays: dict[str, Any] = {
        "train_images": random.randint(0, 256, (12, 4, 5), np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": random.randint(0, 256, (6, 4, 5), np.uint8),
        "test_labels": np.arange(6) % 3,
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


@pytest.fixture
def write(tmp_path):
    def save(name="set.npz", writer=np.savez, **changes):
        writer(tmp_path / name, **small(**changes))
        return tmp_path / name

    return save


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_npz(write, writer):
    path = write(writer=writer, class_names=np.array(["ja", "nein", "vielleicht"]))
    dataset = data.load(path)
    assert (dataset.name, dataset.num_classes) == (str(path), 3)
    assert dataset.class_names == ("ja", "nein", "vielleicht")
    assert np.array_equal(dataset.train_images, small()["train_images"][..., None])
    assert np.array_equal(dataset.test_labels, small()["test_labels"])
    assert dataset.train_images.dtype == np.uint8 and dataset.train_labels.dtype == np.int32


def test_npz_in_colour_and_by_an_odd_name(write):
    colour = {key: np.repeat(small()[key][..., None], 3, -1) for key in ("train_images", "test_images")}
    dataset = data.load(write("ein Satz, ünïcode.npz", **colour))
    assert dataset.train_images.shape == (12, 4, 5, 3) and dataset.class_names == ("0", "1", "2")


def test_fingerprint_is_of_the_arrays_alone(write, digits, tmp_path):
    np.savez(tmp_path / "digits.npz", **{key: getattr(digits, key) for key in cache.ARRAYS})
    columns = {key: np.asfortranarray(getattr(digits, key)) for key in cache.ARRAYS}
    big_endian: dict[str, Any] = columns | {
        key: columns[key].astype(">i8") for key in ("train_labels", "test_labels")
    }
    np.savez_compressed(tmp_path / "other.npz", **big_endian, class_names=np.array(list("abcdefghij")))
    for name in ("digits.npz", "other.npz"):
        assert data.load(tmp_path / name).fingerprint == digits.fingerprint


def test_fingerprint_sees_every_change(write):
    arrays = small()
    pixel, label = arrays["train_images"].copy(), arrays["test_labels"].copy()
    pixel[3, 2, 1] ^= 1
    label[0] = 1
    reshaped = {key: arrays[key].reshape(-1, 5, 4) for key in ("train_images", "test_images")}
    exchanged = {"train_images": arrays["train_images"][::-1]}
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"train_images": pixel},
        {"test_labels": label},
        reshaped,
        exchanged,
    )
    assert len({data.load(write(**change)).fingerprint for change in changes}) == len(changes)


floats = np.zeros((12, 4, 5))
BAD_ARRAYS = {
    "key missing": ({"test_labels": None}, "lacks test_labels"),
    "float images": ({"train_images": floats}, r"train_images are of the wrong type: .*255 \* x.*float64"),
    "int32 images": ({"test_images": np.zeros((6, 4, 5), np.int32)}, "test_images are of the wrong type"),
    "flat images": ({"train_images": np.zeros((12, 20), np.uint8)}, r"wrong shape: .*given \[12, 20\]"),
    "5-d images": ({"train_images": np.zeros((12, 4, 5, 1, 1), np.uint8)}, "wrong shape"),
    "a scalar": ({"train_images": np.uint8(3)}, "wrong shape"),
    "shapes differ": ({"test_images": np.zeros((6, 4, 4), np.uint8)}, "training and test images differ"),
    "channels differ": ({"test_images": np.zeros((6, 4, 5, 3), np.uint8)}, "training and test images differ"),
    "too few labels": ({"train_labels": np.arange(11) % 3}, r"expected \[12\]; given \[11\]"),
    "half a surrogate pair": ({"class_names": np.array(["a", "b", "\ud800"])}, "class_names cannot be shown"),
    "two classes an example": ({"train_labels": np.eye(12, dtype=int) + 1}, "multi-label"),
    "a scalar label": ({"train_labels": np.int64(1)}, "train_labels do not fit"),
    "float labels": ({"train_labels": np.arange(12) % 3 + 0.5}, "train_labels are of the wrong type"),
    "negative label": ({"test_labels": np.arange(6) % 3 - 1}, "negative class"),
    "test class unknown": ({"test_labels": np.arange(6) % 4}, r"name no class: .*0\.\.2; given 3"),
    "class without examples": ({"train_labels": np.arange(12) % 3 * 2}, "no training example.*of class 1"),
    "huge label": ({"train_labels": np.arange(12) * 2**58}, "no training example"),
    "huge unsigned label": ({"train_labels": np.arange(12, dtype="u8") * 2**60}, "no training example"),
    "single class": ({"train_labels": np.zeros(12, int)}, "too few classes"),
    "no training images": (
        {"train_images": floats[:0].astype("u1"), "train_labels": np.arange(0)},
        "are empty",
    ),
    "no test images": ({"test_images": floats[:0].astype("u1"), "test_labels": np.arange(0)}, "are empty"),
    "no pixels": ({"train_images": np.zeros((12, 0, 5), np.uint8)}, "are empty"),
    "too few class names": ({"class_names": np.array(["a", "b"])}, "class_names do not fit"),
    "numbers for class names": ({"class_names": np.arange(3)}, "class_names do not fit"),
}


@pytest.mark.parametrize("changes, message", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays(write, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        data.load(write(**changes))
    assert "\n" not in str(caught.value)


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def member(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def plant(path, **members: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in members.items():
            archive.writestr(f"{key}.npy", content)
    return path


@pytest.mark.parametrize("key", [*cache.ARRAYS, "class_names"])
def test_pickles_are_refused(tmp_path, key):
    trap, sprung = Trap(tmp_path / "sprung"), tmp_path / "sprung"
    pickle.loads(pickle.dumps(trap))
    assert sprung.exists(), "the trap works"
    sprung.unlink()
    names = {"class_names": np.array(["a", "b", "c"])}
    for content in (member(np.array([trap], object)), pickle.dumps(trap)):
        members = {name: member(array) for name, array in (small() | names).items()}
        with pytest.raises(InputError, match="no pickled objects"):
            data.load(plant(tmp_path / "set.npz", **(members | {key: content})))
    assert not sprung.exists()


def test_a_bomb_is_not_unpacked(write, monkeypatch):
    path = write(writer=np.savez_compressed, train_images=np.zeros((12, 2000, 2000), np.uint8))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(cache, "_available_memory", lambda: 2**25)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(InputError, match="too large for the memory"):
        data.load(path)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    members = {name: member(array) for name, array in small().items()}
    lie = members["train_images"].replace(b"(12, 4, 5), }" + b" " * 9, b"(12, 4, 5000000000), }")
    assert lie != members["train_images"]
    with pytest.raises(InputError, match="cannot be read"):
        data.load(plant(tmp_path / "set.npz", **(members | {"train_images": lie})))


def test_damaged_files_raise_nothing_else(write, tmp_path):
    whole = write(writer=np.savez_compressed).read_bytes()
    random = np.random.RandomState(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.randint(len(whole))] ^= 1 << random.randint(8)
        (tmp_path / "damaged.npz").write_bytes(
            damaged[: random.choice([len(whole), random.randint(len(whole))])]
        )
        try:
            data.load(tmp_path / "damaged.npz")
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 200


def test_files_that_are_not_there_or_not_npz(tmp_path):
    (tmp_path / "text.npz").write_text("label,pixel\n3,0\n")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "folder.npz").mkdir()
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("text.npz", "empty.npz", "folder.npz", "array.npz", "absent.npz"):
        with pytest.raises(InputError, match="cannot be read"):
            data.load(tmp_path / name)


@pytest.mark.parametrize("name", ["mnsit", "MNIST1", "digit", "", "../mnist", "mnist/../x", "a b", "x/y/z"])
def test_unknown_names(tmp_path, name):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(
        InputError,
        match=r"unknown dataset: expected digits, an \.npz"
        if "/" not in name
        else f"dataset '{name}' cannot be read.*no such folder",
    ) as caught:
        data.load(name, tmp_path)
    assert "/" in name or str(caught.value).endswith(f"given {name!r}")
    if name.lower() in ("mnsit", "mnist1"):
        assert "nearest: mnist" in str(caught.value)


# --- the validation split -------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", [0, 7])
def test_validation_is_stratified(fraction, seed):
    counts = np.array([1, 2, 3, 10, 101, 250])
    labels = np.random.RandomState(1).permutation(np.repeat(np.arange(6), counts))
    train, validation = data.split_validation(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()
    taken = np.bincount(labels[validation], minlength=6)
    # Worked out class by class, as the docstring says it.
    for count, number in zip(counts.tolist(), taken.tolist(), strict=True):
        wanted = round(fraction * count)
        if fraction > 0 and count >= 2:
            wanted = max(wanted, 1)
        assert number == min(wanted, count - 1)


def test_validation_depends_on_the_seed_alone(digits):
    first = data.split_validation(digits.train_labels, 0.1)[1]
    np.random.seed(123)  # noqa: NPY002 - the global stream is what is tested
    reference = np.random.RandomState(123).rand(3)
    assert np.array_equal(data.split_validation(digits.train_labels, 0.1)[1], first)
    assert np.array_equal(np.random.rand(3), reference), "left alone"  # noqa: NPY002
    assert not np.array_equal(data.split_validation(digits.train_labels, 0.1, seed=1)[1], first)
    # Written down once, for other numpy versions to agree with.
    assert (len(first), first[:5].tolist()) == PINNED_VALIDATION


def test_validation_draws_from_the_whole_class():
    labels = np.zeros(100, int)
    drawn = [data.split_validation(labels, 0.1, seed)[1] for seed in range(200)]
    # 200 draws of 10 from 100: each example 20 times on average, standard deviation 4.2.
    times = np.bincount(np.concatenate(drawn), minlength=100)
    assert times.min() > 3 and times.max() < 40


PINNED_VALIDATION = (130, [1, 5, 9, 18, 27])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_bad_fraction(fraction):
    with pytest.raises(InputError, match="fraction out of range"):
        data.split_validation(np.arange(10) % 2, fraction)


def test_bad_labels_and_seed():
    for labels in (np.zeros((3, 2), int), np.zeros(3)):
        with pytest.raises(InputError, match="labels cannot be split"):
            data.split_validation(labels, 0.1)
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match="seed out of range"):
            data.split_validation(np.arange(10) % 2, 0.1, seed)


def test_importing_is_light():
    code = (
        "import sys, kd_jax.data; print(sorted({'sklearn', 'tensorflow_datasets', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
