"""The description of a run, as config.json holds it: data, teacher, settings, runs (host side).

The fields are documented in io/run_folder.py; io/run_config.py reads and writes the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetInfo:
    """The data, and how many examples each split has. skipped: files that could not be read."""

    name: str
    fingerprint: str
    num_classes: int
    class_names: tuple[str, ...]
    train: int
    validation: int
    test: int
    skipped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SettingInfo:
    """A setting: its name, and the values that make it, the classes that it omits among them."""

    name: str
    values: Mapping[str, Any]

    @property
    def omitted(self) -> tuple[int, ...]:
        """The indices of the omitted classes."""
        return self.values["omitted"]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of this name: a word or a number; None or `default` where the setting has none."""
        return self.values.get(name, default)

    def without(self, *names: str) -> dict[str, Any]:
        """The values but for these: what two settings that differ in nothing else have in common."""
        return {name: value for name, value in self.values.items() if name not in names}


@dataclass(frozen=True)
class RunInfo:
    """One run. teacher_seed: of the teacher that it was given; None: of no single one."""

    run: int
    setting: str
    seed: int
    teacher_seed: int | None


@dataclass(frozen=True)
class TimeSpent:
    """Wall-clock seconds of the whole run and, within it, of its training; the examples that training saw."""

    run_seconds: float = 0.0
    training_seconds: float = 0.0
    examples: float = 0


@dataclass(frozen=True)
class RunDescription:
    """A whole config.json.

    flags, versions: values by name.  teacher, transfer, pretrained: as io/run_folder.py documents them, or
    None.  continued: an object for each time that the run was continued.  time: None in older runs.
    imported: split -> accuracy and support of pretrained weights before training, or None.
    """

    experiment: str
    command: str
    flags: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    data: DatasetInfo
    teacher: Mapping[str, Any] | None
    settings: tuple[SettingInfo, ...]
    runs: tuple[RunInfo, ...]
    question: str = ""
    transfer: Mapping[str, Any] | None = None
    pretrained: Mapping[str, Any] | None = None
    continued: tuple[Mapping[str, Any], ...] = ()
    time: TimeSpent | None = None
    imported: Mapping[str, Mapping[str, float]] | None = None

    def setting_names(self) -> list[str]:
        """In the order of the settings."""
        return [setting.name for setting in self.settings]

    def setting(self, name: str) -> SettingInfo:
        """Errors: KeyError where no setting has this name."""
        return {setting.name: setting for setting in self.settings}[name]

    def seeds(self) -> set[int]:
        return {run.seed for run in self.runs}

    def teacher_seeds(self) -> set[int]:
        """The seeds of the teachers of all runs that have a single one."""
        return {run.teacher_seed for run in self.runs if run.teacher_seed is not None}

    def describe_units(self) -> str:
        """How many seeds and, where there are several, teachers, in words."""
        seeds, teachers = len(self.seeds()), len(self.teacher_seeds())
        words = f"{seeds} seed{'s' if seeds != 1 else ''}"
        return f"{words} of {teachers} teachers" if teachers > 1 else words

    def learns_from_teacher(self, setting: SettingInfo) -> bool:
        """Whether students of this setting depend on the teacher that they were given.

        True if the distillation loss or a feature loss has a weight above 0, if the students start from the
        teacher's initial weights, or if its outputs replace the labels. False if the ablation leaves one
        class of its output.
        """
        if setting.get("student_init") == "teacher" or setting.get("feature_weight"):
            return True
        if setting.get("teacher_ablation") == "omitted_removed":
            return len(setting.omitted) < self.data.num_classes - 1
        return setting.get("alpha") != 0 or self.flags.get("transfer", "own") != "own"

    def teachers_of_runs(self, of_teacher: bool = False) -> dict[tuple[str, int], int | None]:
        """(setting, seed) -> the seed of the teacher on which this run depends; None: on none.

        of_teacher: of values that are made with the teacher (`summary.depends_on_teacher`), so that a run
        depends on the one that it was given even if it learnt nothing from it.
        """
        taught = {s.name for s in self.settings if of_teacher or self.learns_from_teacher(s)}
        return {
            (run.setting, run.seed): run.teacher_seed if run.setting in taught else None for run in self.runs
        }

    def teachers_of_seeds(self) -> list[int | None]:
        """Of each seed, in the order of the runs, the teacher on which any of its runs depends: the clusters
        of means over all settings."""
        by_seed: dict[int, int | None] = {}
        for (_, seed), teacher in self.teachers_of_runs().items():
            if by_seed.get(seed) is None:
                by_seed[seed] = teacher
        return list(by_seed.values())

    def unit_of(self, setting: str) -> str:
        """What n counts of this setting, as " teachers", where these are fewer than the seeds; nothing where
        it is seeds."""
        units = [teacher for (name, _), teacher in self.teachers_of_runs().items() if name == setting]
        return " teachers" if 1 < len(set(units) - {None}) < len(units) else ""


def describe_omitted(settings: Sequence[SettingInfo]) -> str:
    """What omission means for these settings, in words."""
    if any(setting.get("shots") for setting in settings):
        return "omitted from training, except for the shots"
    if any(setting.get("transfer_share") for setting in settings):
        return "omitted from training, except for synthesised images"
    return "never seen in training"


def candidates(settings: Sequence[SettingInfo]) -> list[SettingInfo]:
    """The settings among which the report chooses the one of its answer, without a look at a result.

    Conditions: omitted classes; a teacher in the loss; no teacher ablation; random initial weights; no shots
    of an omitted class; and the same omitted classes as the first setting that omits the fewest, so that all
    are judged on the same classes. A condition that no setting meets is dropped.
    """
    conditions = (
        lambda s: s.omitted,
        lambda s: s.get("alpha") != 0,
        lambda s: not s.get("teacher_ablation"),
        lambda s: not s.get("student_init"),
        lambda s: not s.get("shots"),
    )
    left = list(settings)
    for condition in conditions:
        left = list(filter(condition, left)) or left
    first = min(left, key=lambda s: len(s.omitted))
    return [s for s in left if s.omitted == first.omitted]
