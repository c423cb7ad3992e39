"""What images are made of which teacher, and how: the flags of `synthesize` -> plain values."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli.parse import parse_class_set, parse_numbers
from experiments.settings import teachers
from kd_jax import models
from kd_jax.errors import InputError, nearest_path
from kd_jax.io import checkpoint, run_config
from kd_jax.train import sweep
from kd_jax.train.keys import INIT
from kd_jax.train.synthesis import Synthesis, Weights, class_similarities, draw_targets
from kd_jax.types import Variables

DEFAULTS: dict[str, dict[str, float]] = {
    "class_impressions": {
        "updates": 300, "pixel_rate": 0.05, "target_temperature": 20, "total_variation": 0.0, "l2": 0.0,
        "statistics": 0.0, "first_layer": 0.0, "translate": 0,
    },
    "deep_inversion": {
        "updates": 300, "pixel_rate": 0.05, "target_temperature": 1, "total_variation": 0.1, "l2": 0.1,
        "statistics": 1.0, "first_layer": 10.0, "translate": 2,
    },
}  # fmt: skip
"""Method -> the values of its flags where they are not given."""

SCALES = "1,0.1"
"""--scales of class_impressions, where it is not given."""


@dataclass(frozen=True)
class SynthesisConfig:
    """The values of the flags, by their names; None: as DEFAULTS has it for the method. run: the teachers'
    folder; out: the file to write."""

    run: str
    out: Path
    classes: str
    num_images: int
    method: str
    batch_size: int
    updates: int | None
    pixel_rate: float | None
    target_temperature: float | None
    scales: str | None
    total_variation: float | None
    l2: float | None
    statistics: float | None
    first_layer: float | None
    translate: int | None
    seed: int
    untrained: bool

    def number(self, name: str) -> float:
        """The value of a flag of DEFAULTS."""
        given = getattr(self, name)
        return DEFAULTS[self.method][name] if given is None else given


class Teacher(NamedTuple):
    """variables: leading axis M; about: what the provenance says; class_names: of its data."""

    model: Any
    variables: Variables
    image_shape: tuple[int, int, int]
    about: dict[str, Any]
    class_names: list[str]


def load_teacher(path: str, untrained: bool) -> Teacher:
    """The teachers of a run folder, without their data. Errors: InputError."""
    parent = Path(path).expanduser()
    folder = parent / "teachers"
    if not folder.is_dir():
        hint = "" if parent.exists() else nearest_path(path)
        raise InputError("no teacher", "a run folder of train_teacher that is complete", path + hint)
    class_names = list(run_config.read(parent).data.class_names)
    variables, metadata = checkpoint.load(folder)
    with checkpoint.refuse_damaged("teacher", folder):
        model = models.build(metadata["model"], len(class_names), **metadata["model_options"])
        height, width, channels = map(int, metadata["image_shape"])
        stopped = list(metadata.get("diverged", []))
        about = {"path": path, "sha256": checkpoint.read_manifest(folder)[1], "model": metadata["model"]}
        about |= {"num_teachers": teachers.group_size(variables), "class_mask": metadata["class_mask"]}
        about |= {"data": metadata["data"]["name"], "fingerprint": metadata["data"]["fingerprint"]}
        shape = height, width, channels
        teachers.check_arrays(folder, metadata["model"], model, variables, shape)
    teachers.refuse_diverged(path, variables, np.isin(np.arange(about["num_teachers"]), stopped))
    if untrained:
        variables = _initial_variables(model, about["num_teachers"], shape)
        about["untrained"] = True
    return Teacher(model, variables, shape, about, class_names)


def _initial_variables(model: Any, num_teachers: int, image_shape: tuple[int, int, int]) -> Variables:
    """What the teachers of seeds 0 to M - 1 began with; leading axis M."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, INIT))(sweep.run_keys(range(num_teachers), 1, base=0))
    init = partial(models.init_variables, model, image_shape=image_shape)
    drawn = jax.jit(lambda keys: jax.lax.map(init, keys), compiler_options=sweep.QUICK_COMPILE)(keys)
    return jax.tree.map(np.asarray, drawn)


def parse_wanted(options: SynthesisConfig, class_names: list[str]) -> tuple[int, ...]:
    if options.classes == "all" and "all" not in class_names:
        return tuple(range(len(class_names)))
    return parse_class_set("classes", options.classes, class_names, ", or all")


def parse_weights(options: SynthesisConfig) -> Weights:
    """The numbers of the objective. Errors: InputError for one that is out of range or of the other
    method."""
    for name in ("statistics", "first_layer"):
        if options.method != "deep_inversion" and getattr(options, name) is not None:
            given = f"--method={options.method}"
            raise InputError(f"--{name} means nothing here", "--method=deep_inversion", given)
    positive = ("pixel_rate", "target_temperature")
    names = ("total_variation", "l2", "statistics", "first_layer", "translate")
    numbers = {
        name: parse_numbers(name, str(options.number(name)), positive=name in positive)[0]
        for name in (*positive, *names)
    }
    single = {name: np.float32(number) for name, number in numbers.items()}
    rate, temperature = single.pop("pixel_rate"), single.pop("target_temperature")
    return Weights(rate, temperature, **single)  # type: ignore[arg-type]


def parse_synthesis(options: SynthesisConfig, teacher: Teacher) -> Synthesis:
    """The static part. Errors: InputError where the method asks for what the teacher has not."""
    if options.method == "deep_inversion" and "batch_stats" not in teacher.variables:
        expected = "a teacher with batch normalisation, as cnn-32-64-bn, or --method=class_impressions"
        raise InputError(
            "--method=deep_inversion has no statistics to match", expected, teacher.about["model"]
        )
    height, width, _ = teacher.image_shape
    most = min(height, width) - 1
    if options.number("translate") > most:
        expected = f"at most {most} pixels, as images have {height} x {width}"
        raise InputError("--translate out of range", expected, options.translate)
    use_statistics = options.method == "deep_inversion"
    return Synthesis(teacher.model, teacher.image_shape, int(options.number("updates")), use_statistics)


def parse_scales(options: SynthesisConfig) -> tuple[float, float] | None:
    """The numbers of --scales; None of a method whose targets are the classes. Errors: InputError."""
    if options.method != "class_impressions":
        if options.scales is not None:
            given = f"--method={options.method}"
            raise InputError("--scales means nothing here", "--method=class_impressions", given)
        return None
    scales = parse_numbers("scales", options.scales or SCALES, positive=True)
    if len(scales) != 2:
        raise InputError("--scales are two", "as in 1,0.1", options.scales)
    return scales[0], scales[1]


def targets_of(
    teacher: Teacher, scales: tuple[float, float] | None, seed: int, labels: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """What the teachers shall answer, f32[P,B,K].

    scales: of the Dirichlet concentrations; None: the classes themselves.  labels: i32[P,B]; numbers: i32[P],
    the teacher of each batch.
    """
    if scales is None:
        return np.eye(len(teacher.class_names), dtype=np.float32)[labels]
    kernels = np.asarray(teacher.variables["params"]["logits"]["kernel"])
    similarities = [class_similarities(kernel) for kernel in kernels]
    random = np.random.RandomState(seed)
    return np.stack(
        [
            draw_targets(random, similarities[number], scales, of_batch)
            for number, of_batch in zip(numbers, labels, strict=True)
        ]
    )
