"""Bad input to `predict`, `export` and `synthesize`, as in bad_input_cases.py, and what it refers to."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from kd_jax.io import checkpoint

BAD_NETWORKS = {
    "no run": ([], "no run to"),
    "two runs": (["{sweep}", "{teacher}"], "no run to"),
    "no such run": (["{home}/swep"], "no such folder .did you mean .*/sweep"),
    "a file as a run": (["{file}"], "is not a whole run folder"),
    "a run of format 1": (["{old_run}"], "is a run of an older version"),
    "an unfinished run": (["{unfinished}"], "no checkpoint here"),
    "a flipped byte": (["{flipped}"], "damaged checkpoint: expected sha256"),
    "a manifest of nothing": (["{emptied}"], "damaged"),
    "another run's networks": (["{swapped}"], "teachers is of another run: .*; given --model=mlp-8"),
    "several settings": (
        ["{sweep}"],
        "holds students of several settings: expected --setting=NAME, one of 'labels'",
    ),
    "no such setting": (["{sweep}", "--setting=T=4 omit=4"], "no such setting: .*did you mean T=4 omit=3"),
    "a setting of teachers": (["{teacher}", "--setting=T=4"], "no such setting: expected one of 'teacher'"),
    "seed 2 of 2": (
        ["{teacher}", "--seed=2"],
        "--seed names no seed of the run: expected a seed .* 0 to 1; given 2",
    ),
    "seed below 0": (["{teacher}", "--seed=-1"], "--seed cannot be this"),
    "seed in words": (["{teacher}", "--seed=first"], "--seed cannot be this"),
    "fewer networks than runs": (["{few_networks}", "--seed=1"], "damaged checkpoint: expected 2 networks"),
    "unknown correction": (
        ["{sweep}", "--setting=T=4 omit=3", "--correction=prior_match"],
        "--correction is unknown: .*did you mean prior_matched",
    ),
    "correction of no class": (
        ["{sweep}", "--setting=T=4", "--correction=prior_matched"],
        "omits no class: expected no --correction",
    ),
    "correction that was not measured": (
        ["{sweep}", "--setting=T=4 omit=3", "--correction=teacher_matched"],
        "has no such correction: expected one of none, .*prior_matched",
    ),
    "a correction of damaged results": (["{cut_networks}", "--setting=T=4 omit=3"], "results.csv is cut off"),
    "no out": (["{teacher}", "--out="], "--out is missing"),
    "out is there": (["{teacher}", "--out={file}"], "--out exists"),
    "out is a folder": (["{teacher}", "--out={foreign}"], "--out exists"),
    "out is a link to nowhere": (["{teacher}", "--out={dangling}"], "--out exists"),
    "out in a run": (["{teacher}", "--out={sweep}/predictions.csv"], "--out lies inside another run"),
    "out in a dataset": (["{teacher}", "--out={pictures}/train/cat/new"], "--out lies inside a dataset"),
    "out in a file": (["{teacher}", "--out={file}/new.csv"], "--out cannot be written"),
    "out too long": (["{teacher}", "--out={home}/" + 300 * "x"], "--out cannot be written.*too long"),
    "flag of a training": (["{teacher}", "--epochs=3"], "means nothing here"),
}
BAD_PREDICT = BAD_NETWORKS | {
    f"images: {title}": (["{teacher}", *words], expected)
    for title, (words, expected) in {
        "none": (["--images="], "--images is missing"),
        "nothing there": (["--images={home}/toi.npz"], "no such images: .*did you mean .*/toy.npz"),
        "a dataset's name": (["--images=digits"], "no such images"),
        "a device": (["--images=/dev/null"], "no such images"),
        "folder without any": (["--images={foreign}"], "holds no image: .*; given 1 other files"),
        "empty folder": (["--images={folder}/train"], "holds no image: .*; given an empty folder"),
        "of another size": (["--images={pictures}"], "images of several sizes: expected one size, or an"),
        "in colours": (["--images={colours}"], "an image is in colours: expected grey images"),
        "unreadable file": (["--images={file}"], "1 of 1 images in .* cannot be read"),
        "all unreadable": (["--images={file}", "--skip_unreadable"], "1 of 1 images in .* cannot be read"),
        "bomb": (
            ["--images={bomb_image}/train/cat/0.png", "--image_size=8"],
            "cannot be read.*Decompression",
        ),
        "size of no training": (
            ["--images={pictures}", "--image_size=5"],
            "expected 8 x 8 pixels; given 5",
        ),
        "size of an npz": (["--images={toy}.npz", "--image_size=8"], "image_size is for image files"),
        "npz of another shape": (["--images={toy}.npz"], "are of another shape: expected Nx8x8x1, .*30x6x5"),
        "npz of other arrays": (["--images={nameless}"], "holds no images: expected an array called images"),
        "npz of pickles": (["--images={pickled_images}"], "no pickled objects"),
        "npz of no image": (["--images={no_photos}"], "are empty"),
        "npz of words": (["--images={words_npz}"], "are of the wrong type"),
        "npz of normalised images": (["--images={normalised}"], "are on no known scale"),
        "npz that is no zip": (["--images={no_zip}"], "cannot be read"),
        "npz that is a folder": (["--images={folder_npz}"], "cannot be read"),
        "seed and ensemble": (["--images={colours}", "--ensemble", "--seed=0"], "--ensemble is of all seeds"),
        "no class": (["--images={colours}", "--top_k=0"], "--top_k cannot be this"),
    }.items()
}
BAD_PREDICT["a network that overflows"] = (
    ["{overflowing}", "--images={greys}"],
    "overflows: expected finite .*; given others of 0",
)
BAD_EXPORT = BAD_NETWORKS | {
    "unknown format": (["{teacher}", "--format=onxx"], "stablehlo | safetensors; given onxx"),
    "json is there": (["{teacher}", "--out={taken}"], "--out exists: expected a new file; given .*json"),
    "ensemble": (["{teacher}", "--ensemble"], "unknown flag"),
    "the name of another format": (
        ["{teacher}", "--out={home}/new.safetensors"],
        "--out names a file of another format than --format=stablehlo: .*--format=safetensors",
    ),
}

BAD_SYNTHESIZE = {
    "no run": ([], "no teacher to make images from"),
    "two runs": (["{teacher}", "{small}"], "no teacher to make images from"),
    "no such run": (["{home}/teachr"], "no teacher: .*did you mean .*/teacher"),
    "a file as a run": (["{file}"], "no teacher"),
    "students": (["{sweep}"], "no teacher: expected a run folder of train_teacher"),
    "an unfinished run": (["{unfinished}"], "no teacher: .*that is complete"),
    "a run of format 1": (["{old_teacher}"], "another format: expected format 2; given 0"),
    "a flipped byte": (["{flipped}"], "damaged checkpoint: expected sha256 .*flipped/teachers/arrays"),
    "a file cut short": (["{cut}"], "damaged checkpoint: expected sha256 .*cut/teachers/arrays"),
    "a file that is missing": (["{lost}"], "damaged checkpoint: expected the file .*lost/teachers/arrays"),
    "a manifest of nothing": (["{emptied}"], "damaged .*manifest.json"),
    "a garbled manifest": (["{garbled}"], "damaged checkpoint.*manifest.json"),
    "no out": (["{teacher}", "--out="], "--out is missing"),
    "out is there": (["{teacher}", "--out={toy}.npz"], "--out exists"),
    "out is no .npz": (["{teacher}", "--out={home}/new"], "--out names no .npz"),
    "out in a run": (["{teacher}", "--out={sweep}/new.npz"], "--out lies inside another run"),
    "out in a dataset": (["{teacher}", "--out={pictures}/train/cat/new.npz"], "--out lies inside a dataset"),
    "out in a file": (["{teacher}", "--out={file}/new.npz"], "--out cannot be written"),
    "out in no folder": (["{teacher}", "--out=/dev/null/new.npz"], "--out cannot be written"),
    "out too long": (["{teacher}", "--out={home}/" + 300 * "x" + ".npz"], "cannot be written.*too long"),
    "class 10 of 10": (["{teacher}", "--classes=10"], "--classes names no class '10'"),
    "negative class": (["{teacher}", "--classes=-1"], "--classes names no class"),
    "no class": (["{teacher}", "--classes="], "--classes is missing"),
    "two sets": (["{teacher}", "--classes=3,4"], "--classes names one set"),
    "no image": (["{teacher}", "--num_images=0"], "--num_images cannot be this"),
    "no update": (["{teacher}", "--updates=0"], "--updates cannot be this"),
    "unknown method": (
        ["{teacher}", "--method=dafl"],
        "class_impressions | deep_inversion; given dafl",
    ),
    "statistics of a teacher without batch normalisation": (
        ["{teacher}", "--method=deep_inversion"],
        "no statistics to match: expected a teacher with batch normalisation, .*; given mlp-16",
    ),
    "statistics without their method": (["{teacher}", "--statistics=1"], "--statistics means nothing here"),
    "scales of the other method": (
        ["{teacher}", "--method=deep_inversion", "--scales=1,1"],
        "--scales means nothing here",
    ),
    "three scales": (["{teacher}", "--scales=1,2,3"], "--scales are two"),
    "scale 0": (["{teacher}", "--scales=1,0"], "--scales out of range"),
    "rate nan": (["{teacher}", "--pixel_rate=nan"], "--pixel_rate out of range"),
    "temperature 0": (["{teacher}", "--target_temperature=0"], "--target_temperature out of range"),
    "variation below 0": (["{teacher}", "--total_variation=-1"], "--total_variation out of range"),
    "seed below 0": (["{teacher}", "--seed=-1"], "--seed cannot be this"),
    "flag of a training": (["{teacher}", "--epochs=3"], "means nothing here"),
}

NETWORK_CASES: dict[str, tuple[list[str], dict[str, tuple[list[str], str]]]] = {
    "predict": (["--images={colours}", "--out={home}/new.csv"], BAD_PREDICT),
    "export": (["--out={home}/new.stablehlo"], BAD_EXPORT),
    "synthesize": (
        ["--classes=3", "--num_images=2", "--updates=1", "--out={home}/new.npz"],
        BAD_SYNTHESIZE,
    ),
}


def places(bad: Path, found: dict[str, Path]) -> dict[str, Path]:
    """Runs and images that are none, or not what the flags ask for, in `bad`.  found: whole ones."""
    made = {name: bad / name for name in ("few_networks", "cut_networks", "colours")}
    shutil.copytree(found["teacher"], made["few_networks"])
    variables, about = checkpoint.load(found["lonely"] / "teachers")
    shutil.rmtree(made["few_networks"] / "teachers")
    checkpoint.save(made["few_networks"] / "teachers", variables, about)
    shutil.copytree(found["sweep"], made["cut_networks"])
    made["overflowing"] = shutil.copytree(made["few_networks"], bad / "overflowing")
    shutil.rmtree(made["overflowing"] / "teachers")
    huge = {"params": {k: {n: x * 0 + 1e38 for n, x in v.items()} for k, v in variables["params"].items()}}
    checkpoint.save(made["overflowing"] / "teachers", huge, about)
    results = made["cut_networks"] / "results.csv"
    results.write_bytes(results.read_bytes()[:-3])
    made["colours"].mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(made["colours"] / "0.png")
    grey = np.zeros((2, 8, 8), np.uint8)
    arrays = {
        "nameless": {"arr_0": grey},
        "pickled_images": {"images": np.array([{}], object)},
        "no_photos": {"images": grey[:0]},
        "greys": {"images": grey},
        "words_npz": {"images": np.full((2, 8, 8), "a")},
        "normalised": {"images": np.float32(grey) - 1},
    }
    for name, content in arrays.items():
        made[name] = bad / f"{name}.npz"
        np.savez(made[name], **content)  # type: ignore[arg-type]
    made["taken"] = bad / "taken"
    (bad / "taken.json").write_text("{}")
    return made
