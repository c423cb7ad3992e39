"""The trained networks of a run folder that --setting, --seed and --ensemble name, with their correction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli.flags import NOT_PART_OF_THE_EXPERIMENT
from experiments.settings.teachers import choose_setting
from kd_jax import models
from kd_jax.errors import InputError, nearest_name
from kd_jax.io import checkpoint, run_config, run_folder
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.description import RunDescription, SettingInfo
from kd_jax.train.counts import all_finite
from kd_jax.types import Variables

HELD = {"train_teacher": "teachers", "distill": "students"}
"""Experiment -> the checkpoint of its networks."""

DEFAULT_CORRECTION = "prior_matched"


@dataclass(frozen=True)
class Choice:
    """The values of the flags, by their names.  correction: None: DEFAULT_CORRECTION where the run has it."""

    setting: str | None
    seed: int | None
    correction: str | None
    ensemble: bool = False


class Networks(NamedTuple):
    """All networks of a run.

    model: the module; variables: leading axis R, numpy; image_shape: (h, w, c); metadata: of the checkpoint.
    """

    folder: Path
    description: RunDescription
    metadata: dict[str, Any]
    model: Any
    variables: Variables
    image_shape: tuple[int, int, int]


class Chosen(NamedTuple):
    """M networks of one setting of a run.

    variables: leading axis M, numpy; seeds: M; omitted: bool[K]; correction: its name; biases: f32[M], what
    is added to the logits of the omitted classes; note: why there is no correction, where one is expected.
    """

    networks: Networks
    setting: str
    seeds: list[int]
    variables: Variables
    omitted: np.ndarray
    correction: str
    biases: np.ndarray
    note: str

    @property
    def class_names(self) -> list[str]:
        """K words."""
        return list(self.networks.description.data.class_names)


def describe(chosen: Chosen) -> str:
    """One line about them."""
    seeds = "seed" if len(chosen.seeds) == 1 else "ensemble of the seeds"
    line = f"{chosen.networks.folder}: {chosen.networks.metadata['model']}, setting {chosen.setting!r}, "
    line += f"{seeds} {', '.join(map(str, chosen.seeds))}"
    if chosen.correction == "none":
        return line
    names = " + ".join(name for name, out in zip(chosen.class_names, chosen.omitted, strict=True) if out)
    biases = ", ".join(f"{bias:+.3f}" for bias in chosen.biases.tolist())
    return f"{line}; {chosen.correction}: {biases} nats on the logits of {names}"


def load(folder: Path) -> Networks:
    """The networks of a run folder of train_teacher or distill, verified.

    Errors: InputError that names the file that is missing, damaged or of another run.
    """
    description = run_config.read(folder)
    if description.experiment not in HELD:
        expected = f"a run folder of {' or '.join(HELD)}"
        raise InputError(f"{folder} holds no trained networks", expected, f"one of {description.experiment}")
    path = folder / HELD[description.experiment]
    variables, metadata = checkpoint.load(path)
    with checkpoint.refuse_damaged("checkpoint", path):
        num_classes = metadata["data"]["num_classes"]
        model = models.build(metadata["model"], num_classes, **metadata["model_options"])
        height, width, channels = metadata["image_shape"]
        require_same_run(path, metadata, description)
    return Networks(folder, description, metadata, model, variables, (height, width, channels))


def require_same_run(path: Path, metadata: dict[str, Any], description: RunDescription) -> None:
    """Refuses a checkpoint that lies in another run's folder: the results beside it are of other networks."""
    both = set(metadata["flags"]) & set(description.flags) - NOT_PART_OF_THE_EXPERIMENT
    differing = [
        f"--{name}={metadata['flags'][name]}"
        for name in sorted(both)
        if metadata["flags"][name] != description.flags[name]
    ]
    if metadata["data"] != run_config.to_json(description)["data"]:
        differing.append(f"data {metadata['data']['name']} {str(metadata['data']['fingerprint'])[:12]}")
    if differing:
        raise InputError(
            f"{path} is of another run",
            f"that of the command in {path.parent / 'config.json'}",
            ", ".join(differing),
        )


def choose(networks: Networks, choice: Choice) -> Chosen:
    """The networks that the flags name. Errors: InputError for what the run does not have."""
    description = networks.description
    names = description.setting_names()
    setting = description.setting(choose_setting(str(networks.folder), "--setting", choice.setting, names))
    runs = {run.seed: run.run for run in description.runs if run.setting == setting.name}
    seeds = sorted(runs)
    if choice.ensemble and choice.seed is not None:
        raise InputError("--ensemble is of all seeds", "--ensemble or --seed", f"--seed={choice.seed}")
    if not choice.ensemble:
        seed = seeds[0] if choice.seed is None else choice.seed
        if seed not in runs:
            expected = f"a seed of {networks.folder}: {seeds[0]} to {seeds[-1]}"
            raise InputError("--seed names no seed of the run", expected, seed)
        seeds = [seed]
    index = np.array([runs[seed] for seed in seeds])
    size = len(jax.tree.leaves(networks.variables)[0])
    if index.max() >= size:
        raise InputError("damaged checkpoint", f"{index.max() + 1} networks or more", size)
    variables = jax.tree.map(lambda leaf: leaf[index], networks.variables)
    stopped = np.isin(index, networks.metadata.get("diverged", []))
    stopped |= ~np.asarray(jax.vmap(all_finite)(variables))
    if stopped.any():
        given = f"seed {', '.join(str(seed) for seed, lost in zip(seeds, stopped, strict=True) if lost)}"
        raise InputError(f"a run of {setting.name!r} diverged", "one that stayed finite", given)
    omitted = np.isin(np.arange(description.data.num_classes), setting.omitted)
    correction, biases, note = _correction(networks, setting, seeds, choice.correction)
    return Chosen(networks, setting.name, seeds, variables, omitted, correction, biases, note)


def _correction(
    networks: Networks, setting: SettingInfo, seeds: list[int], name: str | None
) -> tuple[str, np.ndarray, str]:
    """(name, biases f32[M], note) of the correction that is asked for: results.csv has the biases."""
    nothing = np.zeros(len(seeds), np.float32)
    if name == "none" or (name is None and not setting.omitted):
        return "none", nothing, ""
    if name is not None and name not in CORRECTIONS:
        near = nearest_name(name, CORRECTIONS)
        raise InputError("--correction is unknown", f"one of {', '.join(CORRECTIONS)}", f"{name!r}{near}")
    if not setting.omitted:
        expected = "no --correction, or a setting that omits a class"
        raise InputError(f"setting {setting.name!r} omits no class", expected, f"--correction={name}")
    asked = name or DEFAULT_CORRECTION
    found: dict[str, dict[int, float]] = {}
    for row in run_folder.read_results(networks.folder, networks.description):
        if (row.setting, row.metric, row.class_) == (setting.name, "bias", "omitted"):
            found.setdefault(row.correction, {})[row.seed] = row.value
    measured = [each for each in found if each != "none" and set(seeds) <= set(found[each])]
    if asked in measured:
        return asked, np.array([found[asked][seed] for seed in seeds], np.float32), ""
    if name is None:
        return "none", nothing, f"{networks.folder} has no {asked}: the omitted classes are not corrected"
    expected = f"one of {', '.join(['none', *measured])}, which results.csv has of {setting.name!r}"
    raise InputError(f"{networks.folder} has no such correction", expected, name)
