"""Prepared TFDS sets against records that the tests write themselves, and every unsuitable or damaged one
against the one line that names it."""

import ast
import inspect
import io
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kd_jax import data
from kd_jax.data import tfds
from kd_jax.errors import InputError


def png(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


def colour(num_examples, shape=(6, 5, 3), seed=0):
    """u8[N,*shape] and i64[N], the labels below 10."""
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (num_examples, *shape), np.uint8), random.randint(0, 10, num_examples)


def prepare(
    root,
    name="cifar100",
    version="3.0.2",
    splits=None,
    shape=(6, 5, 3),
    file_format="array_record",
    other_labels=(),
    supervised=True,
    features=None,
):
    """Writes what TFDS would have prepared, real records included; splits: name -> (images, labels);
    features: TFDS's own declaration, instead of ten classes and what `shape` and `other_labels` say."""
    types = pytest.importorskip("tensorflow_datasets").features
    from array_record.python.array_record_module import ArrayRecordWriter

    folder = root / name / version
    folder.mkdir(parents=True)
    kinds = {key: types.ClassLabel(num_classes=20) for key in other_labels}
    kinds["label"] = types.ClassLabel(names=[f"class {k}" for k in range(10)])
    features = features or types.FeaturesDict({"image": types.Image(shape=shape), **kinds})
    others = {key: "" if isinstance(kind, types.Text) else 0 for key, kind in features.items()}
    features.save_config(str(folder))
    splits = splits or {"train": colour(30), "test": colour(20, seed=1)}
    base = Path(name).parts[0]
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(
            str(folder / f"{base}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        for pixels, label in zip(images, labels, strict=True):
            writer.write(features.serialize_example(others | {"image": png(pixels), "label": label}))
        writer.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        "name": base,
        "version": version,
        "fileFormat": file_format,
        "moduleName": "tensorflow_datasets.image_classification.cifar",
        "splits": [
            {"name": split, "filepathTemplate": template, "numBytes": "1", "shardLengths": [str(len(images))]}
            for split, (images, _) in splits.items()
        ],
    }
    if supervised:
        info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_tfds(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "_DECODE_BLOCK", 7)  # Blocks that do not divide the split.
    prepare(tmp_path, other_labels=["coarse_label"])
    dataset = data.load("cifar100", tmp_path, tmp_path / "cache")
    (train_images, train_labels), (test_images, test_labels) = colour(30), colour(20, seed=1)
    assert np.array_equal(dataset.train_images, train_images)
    assert np.array_equal(dataset.test_images, test_images)
    assert np.array_equal(dataset.train_labels, train_labels) and dataset.train_labels.dtype == np.int32
    assert np.array_equal(dataset.test_labels, test_labels)
    assert dataset.class_names == tuple(f"class {k}" for k in range(10))
    assert "tensorflow" not in sys.modules


def test_cifar100_as_tfds_declares_it(tmp_path):
    """Its 20 coarse labels, 0 here, are not the 100 that count."""
    library = pytest.importorskip("tensorflow_datasets")
    with library.testing.mock_data():  # which keeps the builder from asking the network
        features = library.builder("cifar100", data_dir=tmp_path / "nothing").info.features
    images, _ = colour(100, (32, 32, 3))
    prepare(tmp_path, splits=dict.fromkeys(("train", "test"), (images, range(100))), features=features)
    dataset = data.load("cifar100", tmp_path)
    assert dataset.num_classes == 100 and dataset.train_labels.tolist() == list(range(100))
    assert np.array_equal(dataset.test_images, images)
    assert "tensorflow" not in sys.modules


def test_tfds_data_dir_and_the_validation_split(tmp_path, monkeypatch):
    prepare(tmp_path, splits={"train": colour(30), "validation": colour(20, seed=2)}, supervised=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    dataset = data.load("cifar100:3.0.2")
    assert np.array_equal(dataset.test_images, colour(20, seed=2)[0])


def test_tfds_versions(tmp_path):
    for number, version in enumerate(("2.9.0", "3.0.2", "10.0.0")):
        prepare(tmp_path, version=version, splits={"train": colour(30, seed=number), "test": colour(9)})
    (tmp_path / "cifar100" / "11.0.0").mkdir()  # Not finished: it holds nothing yet.
    for number, name in enumerate(("cifar100:2.9.0", "cifar100:3.0.2", "cifar100")):
        assert np.array_equal(data.load(name, tmp_path).train_labels, colour(30, seed=number)[1])
    with pytest.raises(InputError, match=r"not prepared.*given version 10\.0\.0, 2\.9\.0, 3\.0\.2 there"):
        data.load("cifar100:1.0.0", tmp_path)


def test_tfds_configurations(tmp_path):
    prepare(tmp_path, name="emnist/letters")
    prepare(tmp_path, name="emnist/digits")
    assert data.load("emnist/letters", tmp_path).num_classes == 10
    with pytest.raises(InputError, match="configurations: expected one of emnist/digits, emnist/letters"):
        data.load("emnist", tmp_path)


BAD_SETS = {
    "no test split": ({"splits": {"train": colour(9)}}, "lacks a split.*given train"),
    "no training split": ({"splits": {"test": colour(9)}}, "lacks a split.*given test"),
    "a label that is no class": (
        {"splits": {"train": colour(9), "test": (colour(2)[0], [-1, -1])}},
        "negative",
    ),
    "16-bit images": ({"shape": (6, 5, 1), "dtype": np.uint16}, "no image classification"),
    "records unreadable without TensorFlow": (
        {"file_format": "tfrecord"},
        "prepared as array_record.*array_record",
    ),
}


@pytest.mark.parametrize("changes, message", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_unsuitable_tfds_sets(tmp_path, changes, message):
    changes = dict(changes)
    dtype = changes.pop("dtype", None)
    folder = prepare(tmp_path, **(changes if dtype is None else {}))
    if dtype is not None:
        features = json.loads((folder / "features.json").read_text())
        features["featuresDict"]["features"]["image"]["image"] |= {"dtype": "uint16", "encodingFormat": "png"}
        (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(InputError, match=message) as caught:
        data.load("cifar100", tmp_path, tmp_path / "cache")
    assert "\n" not in str(caught.value) and not (tmp_path / "cache").exists()


def test_two_labels_and_no_word_on_which(tmp_path):
    prepare(tmp_path, supervised=False, other_labels=["coarse_label"])
    with pytest.raises(InputError, match=r"no image classification.*coarse_label: ClassLabel"):
        data.load("cifar100", tmp_path)


def test_a_segmentation_is_not_the_image():
    types = pytest.importorskip("tensorflow_datasets").features
    mask = types.LabeledImage(labels=2, shape=(6, 5, 1))
    features = types.FeaturesDict(
        {"mask": mask, "image": types.Image(), "label": types.ClassLabel(num_classes=3)}
    )
    info = SimpleNamespace(features=features, supervised_keys=None)
    assert tfds._feature_keys("pets", info, types) == ("image", "label")


def test_images_of_several_sizes(tmp_path):
    images = [np.zeros((6, 5, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)]
    prepare(tmp_path, shape=(None, None, 3), splits={"train": (images, [0, 1]), "test": (images, [0, 1])})
    with pytest.raises(InputError, match=r"several sizes.*given \[6, 5, 3\] and \[5, 6, 3\]"):
        data.load("cifar100", tmp_path)


@pytest.mark.parametrize("damage", ["omitted", "cut", "flipped", "info", "features"])
def test_damaged_tfds_files(tmp_path, damage):
    folder = prepare(tmp_path)
    records = folder / "cifar100-test.array_record-00000-of-00001"
    content = bytearray(records.read_bytes())
    if damage == "omitted":
        records.unlink()
    elif damage == "cut":
        records.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[100] ^= 1
        records.write_bytes(content)
    else:
        name = {"info": "dataset_info.json", "features": "features.json"}[damage]
        (folder / name).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        data.load("cifar100", tmp_path, tmp_path / "cache")


def test_features_that_name_code_are_refused(tmp_path, monkeypatch):
    folder = prepare(tmp_path)
    (tmp_path / "trap_module.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    text = (folder / "features.json").read_text()
    kind = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
    for name in ("pythonClassName", r"python\u0043lassName", "python_class_name"):
        foreign = text.replace(f'"pythonClassName": "{kind}"', f'"{name}": "trap_module.Label"')
        assert foreign != text
        (folder / "features.json").write_text(foreign)
        with pytest.raises(InputError, match="names code to import"):
            data.load("cifar100", tmp_path)
    (folder / "features.json").write_text(json.dumps({"type": "trap_module.Label", "content": {}}))
    with pytest.raises(InputError, match="names code to import"):
        data.load("cifar100", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("place", ["data", "my data", "it's $HOME"])
def test_the_error_says_how_to_prepare(tmp_path, place):
    builder = pytest.importorskip("tensorflow_datasets").core.DatasetBuilder
    with pytest.raises(InputError, match="not prepared") as caught:
        data.load("kmnist", tmp_path / place)
    (command,) = re.findall(r"put there by: (.*); given", str(caught.value))
    python, _, needs = command.partition(" (")
    assert needs == "with TensorFlow: the extra prepare)"
    words = shlex.split(python)
    assert words[:2] == ["python", "-c"] and len(words) == 3
    ast.parse(words[2])
    folder = str(tmp_path / place)
    call = f"tfds.builder('kmnist', data_dir={folder!r}).download_and_prepare(file_format='array_record')"
    assert words[2] == f"import tensorflow_datasets as tfds; {call}"
    assert "file_format" in inspect.signature(builder.download_and_prepare).parameters
