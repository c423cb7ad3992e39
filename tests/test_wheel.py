"""The wheel: the library alone, which works where the repository is not."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.test_readme_code import LIBRARY, shortened

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def run(folder: Path, *words: str | Path) -> str:
    """What a command prints in this folder. It sees no module of the repository."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, because setuptools leaves its folders beside what it builds."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("kd_jax", "experiments", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # An environment that was set up before has a setuptools that is too old: pip then fetches one.
    offline = ["--no-build-isolation"] if int(version("setuptools").split(".")[0]) >= 77 else []
    run(built, sys.executable, "-m", "pip", "wheel", "--no-deps", *offline, "--wheel-dir", built, source)
    (path,) = built.iterdir()
    return path


def test_it_holds_the_library_alone(wheel):
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "kd_jax").rglob("*.py")} | {"kd_jax/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not re.match(r"kd_jax-[\w.]+\.dist-info/", name)}
    assert found == expected


def test_the_librarys_page_runs_where_the_repository_is_not(wheel, tmp_path):
    """In a fresh environment, which finds the dependencies where this one has them by a .pth file. What such
    files of that place name is not read, so the editable install of the repository is not found."""
    run(tmp_path, sys.executable, "-m", "venv", "--without-pip", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(tmp_path, python, "-I", "-c", ask).strip())
    places = [place for place in sys.path if place.endswith("-packages")]
    (packages / "dependencies.pth").write_text("".join(f"{place}\n" for place in places))
    options = ("--no-deps", "--no-index", "--ignore-installed")
    run(tmp_path, sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    (tmp_path / "page.py").write_text(f"{shortened(LIBRARY)}\nimport kd_jax\n\nprint(kd_jax.__file__)\n")
    trained, corrected, path = run(tmp_path, python, "-I", "page.py").splitlines()
    assert trained.startswith("as trained: ") and corrected.startswith("prior_matched: ")
    assert Path(path) == packages / "kd_jax" / "__init__.py"
    there = "import importlib.util; print(importlib.util.find_spec('experiments'))"
    assert run(tmp_path, python, "-I", "-c", there).strip() == "None"
