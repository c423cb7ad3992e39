"""What made a result: the version of the code, the command, the flags, the packages, the device, the data."""

import contextlib
import os
import platform
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they load numpy, and `info` and the errors of a command line need neither
    import numpy as np

    from kd_jax.data import Dataset
    from kd_jax.stats.description import RunDescription, SettingInfo

ROOT = Path(__file__).resolve().parents[2]


def own_version(root: Path) -> str:
    """Of the code in `root`: 0.1.0, or 0.1.0+<commit>[.dirty] in a git checkout, where git answers."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        number = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
        git = ["git", "--no-optional-locks", "-C", str(root), "--git-dir=.git", "describe"]
        git += ["--always", "--exclude=*", "--dirty=.dirty"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout
            return f"{number}+{commit.strip()}"
        return number
    return "unknown"


def command() -> str:
    """The line that started this experiment."""
    return shlex.join(["./launch.sh", Path(sys.argv[0]).stem, *sys.argv[1:]])


def describe(
    flags: dict[str, Any],
    dataset: "Dataset",
    train: "np.ndarray",
    validation: "np.ndarray",
    settings: "Iterable[SettingInfo]",
    runs: Iterable[tuple[str, int, int | None]],
    **others: Any,
) -> "RunDescription":
    """What config.json says of a run that begins now.

    flags: their values, by name.  train, validation: indices of the parts of the training data.  runs: of
    each run its setting, its seed and that of its teacher.  others: further fields of RunDescription.
    """
    from kd_jax.stats.description import DatasetInfo, RunDescription, RunInfo

    return RunDescription(
        experiment=Path(sys.argv[0]).stem,
        flags=flags,
        data=DatasetInfo(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            num_classes=dataset.num_classes,
            class_names=tuple(dataset.class_names),
            train=len(train),
            validation=len(validation),
            test=len(dataset.test_labels),
            skipped=dataset.num_skipped,
            notes=tuple(dataset.notes),
        ),
        settings=tuple(settings),
        runs=tuple(RunInfo(run, *of_run) for run, of_run in enumerate(runs)),
        **surroundings() | {"teacher": None} | others,
    )


def surroundings() -> dict[str, Any]:
    """The command, the versions and the device that make a result now."""
    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
    devices = jax.devices()
    device = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    together = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return {
        "command": command(),
        "versions": {"kd_jax": own_version(ROOT), "python": platform.python_version()}
        | {package: version(package) for package in packages},
        "device": f"{device}, {os.cpu_count()} CPU cores{together}",
    }
