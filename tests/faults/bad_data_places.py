"""Data as people have them and as they break: files and folders for the cases of bad_input_data.py."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults import samples


def write(bad: Path, whole: Path) -> dict[str, Path]:
    """Name -> path.  bad: the folder to write in; whole: an .npz that is a dataset."""
    return _arrays(bad, whole) | _folders(bad) | _parquet(bad)


def _arrays(bad: Path, whole: Path) -> dict[str, Path]:
    with np.load(whole) as held:
        good = dict(held)
    labels = {key: good[key] for key in ("train_labels", "test_labels")}
    words = np.array(["ant", "bee", "cow"])
    changes: dict[str, dict[str, Any]] = {
        "from_one": {key: array + 1 for key, array in labels.items()},
        "multi_label": {key: np.ones((len(array), 3), int) for key, array in labels.items()},
        "odd_words": {"train_labels": words[labels["train_labels"]], "test_labels": np.array(["owl"] * 30)},
        "half_val": {"val_images": good["test_images"]},
        "new_val": {"val_images": good["test_images"][:2], "val_labels": np.array([0, 9])},
        "whole_labels": {key: array.astype(float) for key, array in labels.items()},
        "words": {key: words[array] for key, array in labels.items()},
        "twice": {},
    }
    found = {name: bad / f"{name}.npz" for name in (*changes, "empty_npz")}
    for name, change in changes.items():
        np.savez(found[name], **(good | change))
    with zipfile.ZipFile(found["twice"], "a") as archive:
        archive.writestr("train_labels", archive.read("train_labels.npy"))
    found["empty_npz"].touch()
    return found


def _folders(bad: Path) -> dict[str, Path]:
    names = ("table", "untaught", "unlabelled_test", "two_trains")
    found = {name: samples.pictures(bad / name) for name in names}
    table = found["table"]
    for path in [*table.rglob("*.png")]:
        path.rename(path.parents[1] / f"{path.parent.name}{path.name}")
    for path in (
        table / "train" / "cat",
        table / "train" / "dog",
        table / "val" / "cat",
        table / "val" / "dog",
    ):
        path.rmdir()
    for name in ("cat", "dog"):
        shutil.rmtree(found["untaught"] / "val" / name)
    shutil.rmtree(found["unlabelled_test"] / "val")
    (found["unlabelled_test"] / "test").mkdir()
    (found["two_trains"] / "Training").mkdir()
    whole = samples.pictures(bad / "for_classes")
    for name in ("classes", "empty_file"):
        found[name] = bad / name
        shutil.copytree(whole / "train", found[name])
        shutil.copytree(whole / "val" / "cat", found[name] / "owl")
        shutil.copytree(whole / "val" / "dog", found[name] / "fox")
    (found["empty_file"] / "cat" / "2.png").write_bytes(b"")
    found["singles"] = bad / "singles"
    for name in ("cat", "dog"):
        (found["singles"] / name).mkdir(parents=True)
        shutil.copy(whole / "train" / name / "0.png", found["singles"] / name)
    found["other_splits"] = bad / "other_splits"
    for split in ("training_set", "test_set"):
        shutil.copytree(whole / "train", found["other_splits"] / split)
        shutil.copy(whole / "train" / "cat" / "0.png", found["other_splits"] / split)
    found["outer"] = bad / "outer"
    samples.pictures(found["outer"] / "pictures")
    shutil.rmtree(whole)
    return found


def encoded(number: int, size: tuple[int, int] = (5, 6)) -> bytes:
    """The PNG of an image of noise."""
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(number).randint(0, 256, (*size, 3)).astype(np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


def _parquet(bad: Path) -> dict[str, Path]:
    import pyarrow
    import pyarrow.parquet

    names = ("bad_parquet", "no_column", "table_file", "bad_image")
    found = {name: bad / f"{name}.parquet" for name in names}
    found["bad_parquet"].write_bytes(b"PAR1 and no more")
    images = [{"bytes": encoded(number), "path": None} for number in range(8)]
    columns: dict[str, Any] = {"image": images, "label": [number % 2 for number in range(8)]}
    damaged = [*images[:3], {"bytes": images[3]["bytes"][:40], "path": None}, *images[4:]]  # type: ignore[index]
    for name, table in {
        "no_column": {"label": columns["label"]},
        "table_file": columns,
        "bad_image": columns | {"image": damaged},
    }.items():
        pyarrow.parquet.write_table(pyarrow.table(table), found[name])
    return found
