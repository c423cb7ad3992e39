"""Images from teachers alone: an .npz dataset that names its teachers, and a sheet of its images."""

import time
from typing import Any

import jax
import numpy as np

from experiments.cli import places, provenance
from experiments.reporting.sections import contact_sheet
from experiments.settings.synthesis import (
    SCALES,
    SynthesisConfig,
    Teacher,
    load_teacher,
    parse_scales,
    parse_synthesis,
    parse_wanted,
    parse_weights,
    targets_of,
)
from kd_jax import models
from kd_jax.data import synthetic
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.train.synthesis import synthesize


def run(options: SynthesisConfig, flags: dict[str, Any]) -> None:
    """Writes the file `out` and, beside it, its sheet as a .png.  flags: all values by name.
    Errors: InputError, before anything is computed."""
    refuse_taken(options)
    teacher = load_teacher(options.run, options.untrained)
    wanted = parse_wanted(options, teacher.class_names)
    scales = parse_scales(options)
    weights, synthesis = parse_weights(options), parse_synthesis(options, teacher)
    num_teachers = teacher.about["num_teachers"]
    labels, teachers = layout(wanted, options.num_images, num_teachers, options.batch_size)
    start = time.monotonic()
    folded = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(options.seed), np.arange(len(labels), dtype=np.uint32)
    )
    targets = targets_of(teacher, scales, options.seed, np.maximum(labels, 0), teachers)
    made, _ = synthesize(synthesis, teacher.variables, weights, folded, targets, teachers)
    seconds = time.monotonic() - start
    images = np.asarray(made).reshape(-1, *teacher.image_shape)
    made_by = teachers.repeat(labels.shape[1])
    labels = labels.reshape(-1)
    kept = labels >= 0
    images, made_by, labels = images[kept], made_by[kept], labels[kept]
    share = assigned_share(teacher, images, labels, made_by)
    origin = describe(options, teacher, wanted, flags) | {"assigned": share, "seconds": round(seconds, 1)}
    is_test = held_out(labels, made_by)
    arrays = (images[~is_test], labels[~is_test], images[is_test], labels[is_test])
    content = synthetic.to_bytes(arrays, teacher.class_names, made_by[~is_test], origin)
    groups = labels * num_teachers + made_by
    sheet = contact_sheet.sheet(images[~is_test], groups[~is_test])
    run_files.write(options.out, content)  # the two one after the other: none is likely to stay alone
    run_files.write(options.out.with_suffix(".png"), sheet)
    names = ", ".join(teacher.class_names[k] for k in wanted)
    num_test, many = int(is_test.sum()), "s" if num_teachers > 1 else ""
    print(
        f"{len(images) - num_test} training and {num_test} test images of {names} from {num_teachers} "
        f"teacher{many} in {seconds:.0f} s; their teachers assign {100 * share:.1f} % to the class\n"
        f"{options.out} and {options.out.with_suffix('.png')} are written"
    )


def refuse_taken(options: SynthesisConfig) -> None:
    """Refuses --out that is no new .npz file, and one that cannot be written: nothing is computed for it."""
    if options.out.suffix != ".npz":
        raise InputError("--out names no .npz", "--out=runs/threes.npz", options.out)
    for path in (options.out, options.out.with_suffix(".png")):
        places.refuse_existing(path)


def layout(
    wanted: tuple[int, ...], num_images: int, num_teachers: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(labels i32[P,B], teachers i32[P]) of the batches: of each teacher num_images and a tenth more of each
    class, the classes in turn; -1 fills its last batch."""
    each = num_images + -(-num_images // 10)
    of_teacher = np.tile(np.array(wanted, np.int32), each)
    size = min(batch_size, len(of_teacher))
    of_teacher = np.pad(of_teacher, (0, -len(of_teacher) % size), constant_values=-1).reshape(-1, size)
    teachers = np.arange(num_teachers, dtype=np.int32).repeat(len(of_teacher))
    return np.tile(of_teacher, (num_teachers, 1)), teachers


def held_out(labels: np.ndarray, made_by: np.ndarray) -> np.ndarray:
    """bool[N]: the test split, of each class and teacher the last eleventh, rounded up."""
    chosen = np.zeros(len(labels), bool)
    for group in np.unique(np.stack([labels, made_by]), axis=1).T:
        members = np.flatnonzero((labels == group[0]) & (made_by == group[1]))
        chosen[members[len(members) - -(-len(members) // 11) :]] = True
    return chosen


def assigned_share(teacher: Teacher, images: np.ndarray, labels: np.ndarray, made_by: np.ndarray) -> float:
    """The share of the images that the teacher which made them assigns to their class."""
    logits = np.asarray(models.predict_stacked(teacher.model, teacher.variables, images))
    return float(np.mean(logits[made_by, np.arange(len(images))].argmax(-1) == labels))


def describe(
    options: SynthesisConfig, teacher: Teacher, wanted: tuple[int, ...], flags: dict[str, Any]
) -> dict[str, Any]:
    """The provenance of the images."""
    settings = {name: flags[name] for name in sorted(flags) if hasattr(options, name) and name != "out"}
    numbers = ("updates", "pixel_rate", "target_temperature", "total_variation", "l2", "statistics")
    settings |= {name: options.number(name) for name in (*numbers, "first_layer", "translate")}
    if options.method == "class_impressions":
        settings["scales"] = options.scales or SCALES
    return {
        "teacher": teacher.about,
        "method": options.method,
        "classes": list(wanted),
        "settings": settings,
        **provenance.surroundings(),
    }
