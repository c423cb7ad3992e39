"""The files and folders that bad input refers to, made once in a folder of their own."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from kd_jax import data
from kd_jax.io import checkpoint
from tests.faults import bad_data_places, bad_networks, samples

ODD_NAME = "ä b (Ж) ñ's"


def places(home: Path) -> dict[str, str]:
    """Name -> path; `home` is where the entry points run, and their ~."""
    digits, toy = data.load("digits"), data.load(str(samples.toy(home / "toy.npz")))
    (home / "bad").mkdir()
    found = {"home": home, "toy": samples.write_run(home / "toy", toy)}
    found["teacher"] = samples.write_run(home / "teacher", digits)
    found["small"] = samples.write_run(home / "small", digits, spec="mlp-8")
    found["sweep"] = samples.write_run(home / "sweep", digits, samples.SETTINGS, teacher=None)
    found |= _teachers(home / "bad", found["teacher"], found["small"])
    found |= _runs(home / "bad", found["sweep"])
    found |= _arrays(home / "bad", home / "toy.npz")
    found |= _pictures(home / "bad")
    found |= bad_data_places.write(home / "bad", home / "toy.npz")
    found |= bad_networks.places(home / "bad", found)
    return {name: str(path) for name, path in found.items()}


def _edit(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


def _teachers(bad: Path, teacher: Path, small: Path) -> dict[str, Path]:
    """Copies of a teacher, each with another damage."""
    names = ("flipped", "cut", "lost", "extra", "unfinished", "garbled", "emptied", "other_format", "copied")
    names += ("old_teacher", "unsealed", "odd_teacher", "swapped")
    found = {name: bad / (ODD_NAME if name == "odd_teacher" else name) for name in names}
    for path in found.values():
        shutil.copytree(teacher, path)
    arrays = {name: _largest(path / "teachers" / "arrays") for name, path in found.items()}
    _edit(arrays["flipped"], lambda c: c[: len(c) // 2] + bytes([c[len(c) // 2] ^ 1]) + c[len(c) // 2 + 1 :])
    _edit(arrays["cut"], lambda content: content[:-1])
    arrays["lost"].unlink()
    (found["extra"] / "teachers" / "arrays" / "stowaway").touch()
    shutil.rmtree(found["unfinished"] / "teachers")
    manifests = {name: path / "teachers" / "manifest.json" for name, path in found.items()}
    manifests["garbled"].write_text("{")
    manifest = json.loads(manifests["emptied"].read_text())
    for name, change in (
        ("emptied", {"metadata": {}}),
        ("other_format", {"format": 99}),
        ("old_teacher", {"format": 0}),
        ("unsealed", {"sha256": 64 * "0"}),
    ):
        manifests[name].write_text(json.dumps(manifest | change))
    shutil.rmtree(found["swapped"] / "teachers")
    shutil.copytree(small / "teachers", found["swapped"] / "teachers")
    return found | _liars(bad, teacher)


def _largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def _liars(bad: Path, teacher: Path) -> dict[str, Path]:
    """Checkpoints whose metadata are not of their arrays, and one of a single model."""
    variables, about = checkpoint.load(teacher / "teachers")
    lies: dict[str, dict[str, Any]] = {
        "model": {"model": "mlp-17"},
        "depth": {"model": "mlp-16-16"},
        "classes": {"data": about["data"] | {"num_classes": 11}},
        "mask": {"class_mask": [True]},
        "option": {"model_options": {"unheard": 1}},
    }
    for name, lie in lies.items():
        checkpoint.save(bad / f"lying_{name}" / "teachers", variables, about | lie)
    first = {"params": {k: {n: x[:1] for n, x in v.items()} for k, v in variables["params"].items()}}
    checkpoint.save(bad / "lonely" / "teachers", first, about)
    return {f"lying_{name}": bad / f"lying_{name}" for name in lies} | {"lonely": bad / "lonely"}


def _lines(first: int, last: int | None) -> Any:
    return lambda content: b"".join([*content.splitlines(True)[:1], *content.splitlines(True)[first:last]])


def _runs(bad: Path, sweep: Path) -> dict[str, Path]:
    """Run folders that are none, or none any more; a file, a link; flag files."""
    damages: dict[str, tuple[str, Any]] = {
        "cut_results": ("results.csv", lambda content: content[:-3]),
        "few_results": ("results.csv", _lines(1, 200)),
        "above": ("results.csv", lambda content: b"\n".join(_above(content.split(b"\n")))),
        "no_history": ("history.csv", _lines(1, 1)),
        "short_history": ("history.csv", _lines(1, -2)),
        "bad_examples": ("examples.npz", lambda content: content[:-40]),
        "bad_confusions": ("confusions.npz", lambda content: content[:-40]),
        "old_run": ("config.json", lambda content: content.replace(b'"format": 2', b'"format": 1')),
        "halved": ("config.json", lambda content: content[: len(content) // 2]),
        "bad_summary": ("config.json", lambda content: content),
    }
    names = (*damages, "no_curve", "unreported", "strange", "foreign", "benchmarked")
    found = {name: bad / name for name in names}
    for name, path in found.items():
        path.mkdir()
        if name in {*damages, "no_curve", "unreported"}:
            for file in sweep.iterdir():
                if file.is_file():
                    shutil.copy(file, path)
    for name, (file, change) in damages.items():
        _edit(found[name] / file, change)
    (found["no_curve"] / "bias_curve.csv").unlink()
    (found["unreported"] / "results.csv").unlink()
    (found["unreported"] / "checkpoints").mkdir()
    (found["strange"] / "config.json").write_text('{"format": 2}')
    found["blocked"] = bad / "blocked"
    shutil.copytree(found["unreported"], found["blocked"])
    (found["blocked"] / "checkpoints").rmdir()
    (found["blocked"] / "checkpoints").touch()
    (found["foreign"] / "thesis.tex").write_text("years of work")
    (found["benchmarked"] / "gpu.json").write_text("{}")
    (found["bad_summary"] / "summary.json").write_text('{"results": [{"class": true}]}')
    files = {
        "file": "a file",
        "weights.safetensors": "garbage",
        "bytes_file": "",
        "loop": f"--flagfile={bad}/loop",
    }
    files["flagfile"] = "--model=mlp-8\n--epoch=3\n"
    for name, text in files.items():
        (bad / name).write_text(text)
        found[name.partition(".")[0]] = bad / name
    found["bytes_file"].write_bytes(bytes(range(128, 256)))
    found["dangling"] = bad / "dangling"
    found["dangling"].symlink_to(bad / "nowhere")
    return found


def _above(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].rpartition(b",")[0] + b",1.5", *lines[2:]]


def _arrays(bad: Path, whole: Path) -> dict[str, Path]:
    """Archives of arrays that are no dataset."""
    with np.load(whole) as held:
        good = dict(held)
    images, labels = good["train_images"], good["train_labels"]
    changes: dict[str, dict[str, Any]] = {
        "pickled": {"train_labels": np.array([{}] * 60, object)},
        "floats": {"train_images": np.float32(images / 255)},
        "float_labels": {"train_labels": labels + 0.5},
        "negative": {"train_labels": labels - 1},
        "gap": {"train_labels": labels * 2},
        "short": {"test_labels": good["test_labels"][:-1]},
        "strangers": {"test_labels": good["test_labels"] + 1},
        "one_class": {"train_labels": labels * 0, "test_labels": good["test_labels"] * 0},
        "one_image": {"train_images": images[:1], "train_labels": labels[:1]},
        "no_images": {"train_images": images[:0], "train_labels": labels[:0]},
        "flat": {"train_images": images.reshape(60, 30)},
        "two_shapes": {"test_images": good["test_images"][:, :-1]},
        "few_names": {"class_names": np.array(["a", "b"])},
        "shifted": {"class_names": np.array(["1", "2", "3"])},
        "black": {"train_images": images * 0},
        "channels_first": {key: np.stack(2 * [good[key]], 1) for key in ("train_images", "test_images")},
        "volumes": {key: np.stack(7 * [good[key]], -1) for key in ("train_images", "test_images")},
    }  # fmt: skip
    found = {name: bad / f"{name}.npz" for name in changes}
    for name, change in changes.items():
        np.savez(found[name], **(good | change))
    found["odd_npz"] = bad / f"{ODD_NAME}.npz"
    np.savez(found["odd_npz"], **good)
    found["unlabelled"] = bad / "unlabelled.npz"
    np.savez(found["unlabelled"], train_images=images)
    found["quantised"] = bad / "quantised.safetensors"
    safetensors.numpy.save_file({"fc.bias": np.zeros(3, np.int8)}, found["quantised"])
    found["folder_npz"] = bad / "folder.npz"
    found["folder_npz"].mkdir()
    found["no_zip"] = bad / "no_zip.npz"
    found["no_zip"].write_text("not a zip file")
    found["bomb"] = bad / "bomb.npz"
    _bomb(found["bomb"], good)
    return found


def _bomb(path: Path, good: dict[str, np.ndarray]) -> None:
    """A few kilobytes whose header promises 8 TiB of images."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in good.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array)
            content = buffer.getvalue()
            if name == "train_images":
                content = content.replace(b"(60, 6, 5), }      ", b"(60, 400000, 400000), }"[:19], 1)
                content += bytes(2**20)
            archive.writestr(f"{name}.npy", content)


def _pictures(bad: Path) -> dict[str, Path]:
    """Image folders, each lacking something, and two whole ones."""
    names = (
        "pictures",
        "empty_class",
        "stranger",
        "untested",
        "sizes",
        "text_image",
        "cut_image",
        "bomb_image",
        "black_pictures",
        "cut_nameless",
    )
    found = {name: samples.pictures(bad / name) for name in (*names, "dangling_image", "one_folder")}
    found["odd_pictures"] = samples.pictures(bad / f"{ODD_NAME} pictures")
    for split in ("train", "val"):
        (bad / "unfilled" / split / "a").mkdir(parents=True)
    found["folder"] = bad / "unfilled"
    cat = {name: path / "train" / "cat" / "0.png" for name, path in found.items()}
    (found["empty_class"] / "train" / "fox").mkdir()
    shutil.copytree(found["empty_class"] / "val" / "cat", found["empty_class"] / "val" / "fox")
    shutil.copytree(found["stranger"] / "val" / "cat", found["stranger"] / "val" / "fox")
    shutil.rmtree(found["untested"] / "val")
    for split in ("train", "val"):
        shutil.rmtree(found["one_folder"] / split / "dog")
    Image.new("RGB", (9, 9)).save(cat["sizes"])
    cat["text_image"].write_text("this is text")
    _edit(cat["cut_image"], lambda content: content[:-40])
    cat["dangling_image"].unlink()
    cat["dangling_image"].symlink_to("nowhere.png")
    Image.new("1", (20_000, 20_000)).save(cat["bomb_image"])
    for path in (found["black_pictures"] / "train").rglob("*.png"):
        Image.new("RGB", (6, 5)).save(path)
    cat["cut_nameless"].with_name("photo").write_bytes(cat["cut_nameless"].read_bytes()[:-40])
    return found
