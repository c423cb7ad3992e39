"""Parquet files in the layouts of the Hugging Face hub against the images that they were made of."""

import contextlib
import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import parquet
from kd_jax.errors import InputError
from tests.data.images_on_disk import pixels

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra hub) is not installed")
parquet_io = pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog", "owl"]
LABELS = {"train": [0, 1, 2, 0, 1, 2], "test": [2, 1, 0], "validation": [1, 0]}
SEEDS = {"train": range(6), "test": range(10, 13), "validation": range(20, 22)}


def encode(image) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def images_of(split):
    return [{"bytes": encode(pixels(seed)), "path": f"{seed}.png"} for seed in SEEDS[split]]


def features(**columns) -> dict[bytes, bytes]:
    """What `datasets` writes into a schema."""
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


DECLARED = features(image={"_type": "Image"}, label={"_type": "ClassLabel", "names": NAMES})


def write(path, columns, metadata=DECLARED):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    parquet_io.write_table(table, path)
    return path


def write_splits(root, form="data/{}-00000-of-00001.parquet", splits=("train", "test"), **options):
    for split in splits:
        write(root / form.format(split), {"image": images_of(split), "label": LABELS[split]}, **options)
    return root


@pytest.fixture
def load(tmp_path):
    return lambda name, **options: data.load(name, None, tmp_path / "cache", **options)


def refused(load, name, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def holds(dataset, train=range(6), labels=LABELS["train"], test="test") -> bool:
    same = np.array_equal(dataset.train_images, [pixels(seed) for seed in train])
    same &= np.array_equal(dataset.test_images, [pixels(seed) for seed in SEEDS[test]])
    return same and dataset.train_labels.tolist() == labels and dataset.test_labels.tolist() == LABELS[test]


FORMS = ("{}.parquet", "data/{}-00000-of-00001-ab12.parquet", "{}/0000.parquet", "plain/{}/0000.parquet")


@pytest.mark.parametrize("form", FORMS)
def test_layouts(load, tmp_path, form, monkeypatch):
    root = write_splits(tmp_path / "set", form)
    dataset = load(root)
    assert holds(dataset) and dataset.class_names == ("cat", "dog", "owl") and dataset.notes == ()
    assert data.kind(str(root)) == "parquet"
    monkeypatch.setattr(parquet, "decode", None)
    assert load(root).fingerprint == dataset.fingerprint  # from the cache


def test_parts_of_a_split_come_in_order(load, tmp_path):
    root = write_splits(tmp_path / "set")
    rows = {"image": images_of("train"), "label": LABELS["train"]}
    (root / "data" / "train-00000-of-00001.parquet").unlink()
    for part, where in enumerate((slice(0, 4), slice(4, 6))):
        some = {key: column[where] for key, column in rows.items()}
        write(root / "data" / f"train-{part:05}-of-00002.parquet", some)
    assert holds(load(root))


def test_validation_beside_test_is_the_validation_split(load, tmp_path):
    dataset = load(write_splits(tmp_path / "set", splits=("train", "test", "validation")))
    assert holds(dataset, [*range(6), 20, 21], LABELS["train"] + LABELS["validation"])
    assert dataset.num_validation == 2
    assert dataset.notes == ("validation is the validation split, test the test split",)


def test_validation_is_the_test_split_where_test_has_no_labels(load, tmp_path):
    root = write_splits(tmp_path / "set", splits=("train", "validation"))
    assert holds(load(root), test="validation")
    write(root / "data" / "test-0.parquet", {"image": images_of("test"), "label": [-1, -1, -1]})
    dataset = load(root)
    assert holds(dataset, test="validation") and "the test split has no labels" in dataset.notes[0]


def test_a_share_is_the_test_split_where_there_is_none(load, tmp_path):
    root = write_splits(tmp_path / "set", splits=("train",))
    train, test = data.split_validation(np.array(LABELS["train"]), 0.5)
    dataset = load(root, test_fraction=0.5)
    assert np.array_equal(dataset.train_images, [pixels(seed) for seed in train])
    assert np.array_equal(dataset.test_images, [pixels(seed) for seed in test])
    assert sorted(load(root / "data" / "train-00000-of-00001.parquet").test_labels) == [0, 1, 2]
    both = write_splits(tmp_path / "both")
    assert "test_fraction is for data without a test split" in refused(load, both, test_fraction=0.5)


LABELLED = {
    "words": ([NAMES[label] for label in LABELS["train"]], ("cat", "dog", "owl")),
    "integers": (LABELS["train"], ("0", "1", "2")),
    "truth values": ([label > 0 for label in LABELS["train"]], ("0", "1")),
}


@pytest.mark.parametrize("labels, names", LABELLED.values(), ids=LABELLED)
def test_labels_that_are_not_declared(load, tmp_path, labels, names):
    columns = {"img": [image["bytes"] for image in images_of("train")], "animal": labels}
    dataset = load(write(tmp_path / "one.parquet", columns, None))
    assert dataset.class_names == names and len(dataset.train_labels) + len(dataset.test_labels) == 6


def test_columns_are_named_where_several_may_be_meant(load, tmp_path):
    """As of CIFAR-100: two ClassLabels."""
    metadata = features(fine={"_type": "ClassLabel", "names": NAMES}, coarse={"_type": "ClassLabel"})
    columns = {"img": images_of("train"), "fine": LABELS["train"], "coarse": [0, 1] * 3}
    path = write(tmp_path / "one.parquet", columns, metadata)
    line = refused(load, path)
    assert (
        "which column has the labels: expected one column of labels, or label_column, one of fine, co" in line
    )
    assert load(path, label_column="fine").class_names == ("cat", "dog", "owl")
    assert load(path, label_column="coarse").num_classes == 2
    assert "did you mean coarse?" in refused(load, path, label_column="coarce")
    assert "image_column cannot be this" in refused(load, path, label_column="fine", image_column="fine")


def test_images_are_read_as_files_are(load, tmp_path):
    images = [{"bytes": encode(pixels(seed, (6, 5))), "path": None} for seed in range(6)]
    path = write(tmp_path / "one.parquet", {"image": images, "label": LABELS["train"]})
    assert load(path).train_images.shape == (3, 6, 5, 3)
    assert load(path, image_size=4).train_images.shape == (3, 4, 4, 3)
    images[2] = {"bytes": None, "path": "2.png"}
    write(path, {"image": images, "label": LABELS["train"]})
    assert "1 of 6 images" in refused(load, path) and "train row 2" in refused(load, path)
    dataset = load(path, skip_unreadable=True)
    assert dataset.num_skipped == 1 and len(dataset.train_labels) + len(dataset.test_labels) == 5


def test_what_is_refused(load, tmp_path):
    images = images_of("train")
    faults = {
        "without a label": {"image": images, "label": [0, 1, None, 0, 1, 2]},
        "hold a negative class": {"image": images, "label": [0, 1, -1, 0, 1, 2]},
        "labels are no classes": {"image": images, "label": [0.0, 1.0, 0.5, 0.0, 1.0, 1.0]},
        "no classes: expected integers, or whole numbers; given 1e+300": {
            "image": images,
            "label": [0.0, 1.0, 1e300, 0.0, 1.0, 1.0],
        },
        "given train row 2 (no content)": {
            "image": [*images[:2], {"bytes": None, "path": "2.png"}, *images[3:]],
            "label": LABELS["train"],
        },
        "name no class": {"image": images, "label": [0, 1, 7, 0, 1, 2]},
        "which column has the images": {"pixels": [[1, 2]] * 6, "label": LABELS["train"]},
        "which column has the labels": {"image": images, "price": [0.5] * 6},
    }
    for number, (words, columns) in enumerate(faults.items()):
        column = "label" if isinstance(columns.get("label", [0])[0], float) else None
        path = write(tmp_path / f"{number}.parquet", columns)
        assert words in refused(load, path, label_column=column), words
    root = write_splits(tmp_path / "set", "{}.parquet")
    write(root / "test.parquet", {"image": images_of("test")})
    assert "test.parquet lacks a column: expected label; given image" in refused(load, root)
    root = write_splits(tmp_path / "renamed", "{}.parquet")
    others = features(label={"_type": "ClassLabel", "names": NAMES[::-1]})
    write(root / "test.parquet", {"image": images_of("test"), "label": LABELS["test"]}, others)
    assert "test.parquet names its classes otherwise" in refused(load, root)
    write(root / "test.parquet", {"image": images_of("test"), "label": [-1] * 3})
    assert "the test split has no labels" in refused(load, root)
    root = write_splits(write_splits(tmp_path / "two", "a/{}.parquet"), "b/{}.parquet")
    assert "several configurations" in refused(load, root)
    content = bytearray((tmp_path / "0.parquet").read_bytes())
    for place in range(8, len(content) - 8, len(content) // 40):  # one line each, or read all the same
        changed = bytes(content[:place]) + bytes([content[place] ^ 64]) + bytes(content[place + 1 :])
        (tmp_path / "changed.parquet").write_bytes(changed)
        with contextlib.suppress(InputError):
            load(tmp_path / "changed.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "0.parquet").read_bytes()[:-9])
    assert "cannot be read: expected whole parquet files" in refused(load, tmp_path / "cut.parquet")


def test_a_folder_with_the_ending_of_a_file(load, tmp_path):
    assert holds(load(write_splits(tmp_path / "set.parquet", "{}.parquet")))


def test_files_of_other_splits_are_left_out(load, tmp_path):
    root = write_splits(tmp_path / "set", "{}.parquet")
    write_splits(root, "extra-0.parquet", splits=("validation",))
    assert load(root).notes == ("left out: 1 files of no known split (extra-0.parquet)",)


def test_a_dataset_of_the_hub(load, tmp_path, monkeypatch):
    """Its own parquet files, else those of the branch that the hub makes."""
    asked, root = [], write_splits(tmp_path / "converted", "default/{}/0000.parquet")
    (tmp_path / "main").mkdir()

    def snapshot(repository, *, repo_type, revision, allow_patterns):
        asked.append((repository, repo_type, revision, allow_patterns))
        return str(root if revision else tmp_path / "main")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot))
    dataset = load("hf:zoo/animals")
    assert holds(dataset) and dataset.name == "hf:zoo/animals"
    branch = "refs/convert/parquet"
    assert asked == [("zoo/animals", "dataset", revision, ["*.parquet"]) for revision in (None, branch)]
    assert holds(load("hf:zoo/animals/default"))
    assert asked[-1][-1] == ["default/*.parquet"]


def test_the_hub_that_gives_nothing(load, monkeypatch):
    def snapshot(*words, **options):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot))
    assert "the hub gave nothing" in refused(load, "hf:zoo/animals")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "expected the extra hub (huggingface_hub)" in refused(load, "hf:zoo/animals")


def test_without_pyarrow(load, tmp_path, monkeypatch):
    path = write_splits(tmp_path / "set", "{}.parquet") / "train.parquet"
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "need a package that is missing: expected the extra hub (pyarrow)" in refused(load, path)
