"""The floor plan is a test, not a wish: what each file may import and call, read from its syntax tree."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A package imports lower floors only; within a package files import freely, without a circle.
FLOORS = {
    "types": 0,
    "errors": 0,
    "data": 1,
    "models": 1,
    "losses": 1,
    "stats": 1,
    "io": 2,
    "train": 3,
    "evaluate": 4,
    "plots": 5,
}

# What only these may import; everything else by no file at all. In kd_jax and experiments alike.
OWNERS = {
    "flax.linen": "kd_jax/models/",
    "orbax": "kd_jax/io/checkpoint.py",
    "matplotlib": "kd_jax/plots/",
}
NEVER = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle")
NEVER_IN_THE_LIBRARY = ("absl.flags", "tensorflow", "time", "datetime", "experiments", "tests")


def imported(tree: ast.AST) -> set[str]:
    """Every module or member that is imported anywhere in the file, functions included, by its full name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def floor_of(path: str) -> str:
    """The name in FLOORS of a file of kd_jax: that of its package, or its own."""
    return path.removeprefix("kd_jax/").removesuffix(".py").split("/")[0]


def violations(path: str, source: str) -> list[str]:
    """What breaks the plan in the file `path` (relative to the root)."""
    tree = ast.parse(source)
    names = imported(tree)
    found = [f"imports {n}" for n in names for module in NEVER if within(n, module)]
    found += [
        f"imports {n}"
        for n in names
        for m, owner in OWNERS.items()
        if within(n, m) and not path.startswith(owner)
    ]
    found += [f"imports {n} by a relative path" for n in names if n.startswith(".")]
    found += unsafe_calls(tree)
    if path.startswith("kd_jax/") and path != "kd_jax/__init__.py":
        found += [f"imports {n}" for n in names for module in NEVER_IN_THE_LIBRARY if within(n, module)]
        found += ["prints" for node in ast.walk(tree) if is_call(node, "print")]
        found += upward(floor_of(path), names)
    return found


def upward(me: str, names: set[str]) -> list[str]:
    if me not in FLOORS:
        return [f"{me} has no floor: give it one in FLOORS of tests/test_floors.py"]
    others = {name.split(".")[1] for name in names if within(name, "kd_jax") and name != "kd_jax"} - {me}
    return [
        f"imports {other}, which is not below {me}" for other in others if FLOORS.get(other, 99) >= FLOORS[me]
    ]


READERS_OF_FLAGS = ("experiments/cli/flags.py",)
LONGEST_ENTRY_POINT = 150  # lines


def is_entry_point(path: str) -> bool:
    return path.startswith("experiments/") and path.count("/") == 1 and path != "experiments/__init__.py"


def flags_breaches(path: str, source: str) -> list[str]:
    """Where FLAGS is read outside an entry point's main, and the entry points that are imported."""
    tree = ast.parse(source)
    found = []
    if path not in READERS_OF_FLAGS:
        allowed = [node for node in ast.walk(tree) if is_entry_point(path) and runs_as_entry_point(node)]
        inside = {id(node) for part in allowed for node in ast.walk(part)}
        found += [f"reads FLAGS in line {n.lineno}" for n in reads_of_flags(tree) if id(n) not in inside]
    names = {name for name in imported(tree) if within(name, "experiments")}
    return found + [f"imports {n}" for n in names for entry in ENTRY_POINTS if within(n, entry)]


def runs_as_entry_point(node: ast.AST) -> bool:
    """Whether it is the function main, or what follows `if __name__ == "__main__"`."""
    if isinstance(node, ast.FunctionDef):
        return node.name == "main"
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def reads_of_flags(tree: ast.AST) -> list[ast.expr]:
    """Each FLAGS and flags.FLAGS, but for `FLAGS = flags.FLAGS`, which only names it."""
    naming = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node) == "FLAGS = flags.FLAGS"
    }
    loaded = [node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Load)]
    return [
        node
        for node in loaded
        if (isinstance(node, ast.Name) and node.id == "FLAGS")
        or (isinstance(node, ast.Attribute) and node.attr == "FLAGS" and id(node) not in naming)
    ]


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def unsafe_calls(tree: ast.AST) -> list[str]:
    """Calls that may execute what a file holds, or a shell's reading of a name."""
    names = ("eval", "exec", "compile", "__import__")
    found = [f"calls {name}" for node in ast.walk(tree) for name in names if is_call(node, name)]
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in ("os.system", "os.popen"):
            found.append(f"calls {called}")
        if called == "torch.load" and "weights_only" not in {word.arg for word in node.keywords}:  # type: ignore[attr-defined]
            found.append("torch.load without weights_only")
        if isinstance(node, ast.keyword) and node.arg == "shell":
            found.append("starts a shell")
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            safe = node.arg == "weights_only"
            if not (isinstance(node.value, ast.Constant) and node.value.value is safe):
                found.append(f"{node.arg} is not {safe}")
    return found


FILES = sorted(
    str(file.relative_to(ROOT))
    for folder in ("kd_jax", "experiments")
    for file in (ROOT / folder).rglob("*.py")
)


ENTRY_POINTS = [path.removesuffix(".py").replace("/", ".") for path in FILES if is_entry_point(path)]


@pytest.mark.parametrize("path", FILES)
def test_flags_are_read_by_entry_points_alone_which_nobody_imports(path):
    assert flags_breaches(path, (ROOT / path).read_text()) == []


def test_entry_points_are_thin():
    lengths = {path: (ROOT / path).read_text().count("\n") for path in FILES if is_entry_point(path)}
    assert len(lengths) >= 9
    assert max(lengths.values()) <= LONGEST_ENTRY_POINT


@pytest.mark.parametrize(
    "path, source",
    [
        ("experiments/settings/distill.py", "from absl import flags\nflags.FLAGS.loss"),
        ("experiments/settings/distill.py", "from absl.flags import FLAGS\ndef main(): return FLAGS.loss"),
        ("experiments/distill.py", "FLAGS = flags.FLAGS\ndef helper():\n    return FLAGS['loss'].value"),
        ("experiments/distill.py", "from absl import flags\nLOSS = flags.FLAGS.loss"),
        ("experiments/info.py", "from experiments import distill"),
        ("experiments/cli/main.py", "def f():\n    import experiments.distill"),
        ("kd_jax/train/step.py", "from experiments.distill import main"),
    ],
)
def test_each_breach_of_flags_is_seen(path, source):
    assert flags_breaches(path, source)


@pytest.mark.parametrize(
    "path, source",
    [
        ("experiments/distill.py", "FLAGS = flags.FLAGS\ndef main(argv):\n    print(FLAGS.loss)"),
        ("experiments/distill.py", "if __name__ == '__main__':\n    FLAGS.set_default('seeds', 3)"),
        ("experiments/distill.py", "def main(argv):\n    from experiments.studies import distill"),
        ("experiments/cli/flags.py", "def f():\n    return FLAGS.loss"),
    ],
)
def test_flags_that_may_be_read(path, source):
    assert flags_breaches(path, source) == []


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_to_the_plan(path):
    assert violations(path, (ROOT / path).read_text()) == []


def test_the_plan_was_read():
    assert {floor_of(path) for path in FILES if path.startswith("kd_jax/")} == {*FLOORS, "__init__"}


def test_files_do_not_import_in_a_circle():
    """Imports within functions do not count: they happen when all files have been read."""
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in FILES}
    sorter = graphlib.TopologicalSorter()
    for name, path in modules.items():
        top = ast.parse((ROOT / path).read_text())
        top.body = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for other in imported(top):
            found = other if other in modules else other.rpartition(".")[0]
            if found in modules and found != name:
                sorter.add(name, found)
    sorter.prepare()  # raises where they form a circle


@pytest.mark.parametrize(
    "path, source",
    [
        ("kd_jax/losses/logits.py", "from kd_jax.train import sweep"),
        ("kd_jax/losses/logits.py", "from kd_jax.models import build"),
        ("kd_jax/losses/logits.py", "import kd_jax.evaluate.metrics"),
        ("kd_jax/train/step.py", "from kd_jax.evaluate.metrics import confusion"),
        ("kd_jax/stats/summary.py", "from kd_jax.io import run_folder"),
        ("kd_jax/models/mlp.py", "def f():\n    from kd_jax import train"),
        ("kd_jax/types.py", "from kd_jax import stats"),
        ("kd_jax/losses/logits.py", "from .teacher_ablations import ablate_teacher_logits"),
        ("kd_jax/utils.py", ""),
        ("kd_jax/train/step.py", "from experiments.cli import main"),
        ("kd_jax/train/step.py", "from absl import flags"),
        ("kd_jax/train/step.py", "import absl.flags"),
        ("kd_jax/train/step.py", "import time"),
        ("kd_jax/train/step.py", "from time import monotonic"),
        ("kd_jax/data/__init__.py", "def f():\n    import tensorflow as tf"),
        ("kd_jax/train/step.py", "def f():\n    print(1)"),
        ("kd_jax/train/step.py", "import flax.linen as nn"),
        ("kd_jax/train/step.py", "from flax import linen"),
        ("experiments/distill.py", "from flax import linen as nn"),
        ("experiments/cli/main.py", "from orbax.checkpoint import v1"),
        ("kd_jax/io/run_folder.py", "import orbax.checkpoint"),
        ("experiments/report.py", "from matplotlib import pyplot"),
        ("kd_jax/data/arrays.py", "import pickle"),
        ("experiments/report.py", "from pickle import loads"),
        ("kd_jax/data/arrays.py", "import numpy as np\nnp.load('a', allow_pickle=True)"),
        ("kd_jax/data/arrays.py", "import numpy as np\nnp.load('a', allow_pickle=flag)"),
        ("kd_jax/models/pretrained.py", "import torch\ntorch.load('a', weights_only=False)"),
        ("kd_jax/models/pretrained.py", "import torch\ntorch.load('a')"),
        ("kd_jax/data/arrays.py", "import yaml\nyaml.load('a')"),
        ("experiments/cli/main.py", "import os\nos.system('a')"),
        ("experiments/cli/main.py", "import subprocess\nsubprocess.run('a', shell=True)"),
        ("experiments/cli/main.py", "__import__('a')"),
        ("experiments/cli/main.py", "eval('1')"),
    ],
)
def test_each_breach_is_seen(path, source):
    assert violations(path, source)


@pytest.mark.parametrize(
    "path, source",
    [
        ("kd_jax/train/step.py", "from kd_jax.losses import LOSSES\nfrom kd_jax.train.optim import cosine"),
        ("kd_jax/models/__init__.py", "import flax.linen as nn\nfrom kd_jax.models.mlp import mlp"),
        ("kd_jax/io/checkpoint.py", "from orbax.checkpoint import v1 as ocp"),
        ("kd_jax/plots/style.py", "from matplotlib.figure import Figure\nfrom kd_jax.io import run_folder"),
        ("kd_jax/data/arrays.py", "import numpy as np\nnp.load('a', allow_pickle=False)"),
        ("kd_jax/data/tfds.py", "import tensorflow_datasets"),
        ("kd_jax/types.py", "import flax.struct"),
        (
            "experiments/distill.py",
            "import time\nfrom absl import flags\nfrom kd_jax.train import sweep\nprint(1)",
        ),
    ],
)
def test_what_the_plan_allows_is_allowed(path, source):
    assert violations(path, source) == []


LONGEST_FILE, LONGEST_TEST_FILE = 300, 400  # lines


@pytest.mark.parametrize("path", FILES)
def test_files_are_short(path):
    assert (ROOT / path).read_text().count("\n") <= LONGEST_FILE


def test_test_files_are_short():
    lengths = {path: path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py")}
    assert len(lengths) > 50
    assert [str(path) for path, length in lengths.items() if length > LONGEST_TEST_FILE] == []


def words_of_the_program(source: str) -> list[str]:
    """launch.sh anywhere, and flags in texts that are no docstrings: the library has neither."""
    tree = ast.parse(source)
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    explained = {
        id(node.body[0].value)  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if isinstance(node, holders) and ast.get_docstring(node)
    }
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    flags = [n.value for n in texts if id(n) not in explained and re.search(r"(^|\W)--[a-z]", n.value)]
    return flags + re.findall(r"launch\.sh", source)


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("kd_jax/")])
def test_the_library_speaks_neither_of_flags_nor_of_launch_sh(path):
    assert words_of_the_program((ROOT / path).read_text()) == []


def test_words_of_the_program_are_seen():
    assert words_of_the_program('"""--fine"""\nraise ValueError("--wrong")\n') == ["--wrong"]
    assert words_of_the_program('x = f"{y} or --wrong={z}"') == [" or --wrong="]
    assert words_of_the_program("# ./launch.sh") == ["launch.sh"]
