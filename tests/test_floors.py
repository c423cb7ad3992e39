"""The floor plan is a test, not a wish: what each file may import and call, read from its syntax tree."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A file imports lower floors only. "models" is the whole package.
FLOORS = {
    "types": 0,
    "nearest": 0,
    "losses": 1,
    "masking": 1,
    "metrics": 1,
    "noise": 1,
    "signals": 1,
    "models": 1,
    "optim": 1,
    "costs": 2,
    "augment": 1,
    "bias": 1,
    "data": 1,
    "cache": 1,
    "tfds": 1,
    "folders": 1,
    "stats": 1,
    "sums": 1,
    "run_files": 1,
    "run_config": 1,
    "tracking": 1,
    "train": 2,
    "pretrained": 2,
    "checkpoint": 2,
    "results": 2,
    "summary": 2,
    "tidy": 2,
    "axis": 2,
    "analysis": 2,
    "sweep": 3,
    "assess": 3,
    "subliminal": 3,
    "learning": 3,
    "curves": 3,
    "examples": 3,
    "ensemble": 3,
    "plots": 3,
}
SAME_FLOOR = {
    ("bias", "masking"),
    ("metrics", "losses"),
    ("tracking", "bias"),
    ("tracking", "metrics"),
    ("tracking", "models"),
    ("data", "cache"),
    ("data", "folders"),
    ("data", "tfds"),
    ("folders", "cache"),
    ("tfds", "cache"),
    ("run_files", "sums"),
    ("run_config", "run_files"),
    ("summary", "results"),
    ("tidy", "results"),
    ("assess", "sweep"),
    ("ensemble", "sweep"),
    ("subliminal", "sweep"),
    ("plots", "curves"),
    ("plots", "learning"),
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
    """The name in FLOORS of a file of kd_jax: its own, or its package's."""
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
        return [f"{me} has no floor: give it one in DESIGN.md and here"]
    others = {name.split(".")[1] for name in names if within(name, "kd_jax") and name != "kd_jax"} - {me}
    return [
        f"imports {other}, which is not below {me}"
        for other in others
        if FLOORS.get(other, 99) >= FLOORS[me] and (me, other) not in SAME_FLOOR
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


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_to_the_plan(path):
    assert violations(path, (ROOT / path).read_text()) == []


def test_the_plan_was_read():
    assert {floor_of(path) for path in FILES if path.startswith("kd_jax/")} >= {
        "types",
        "losses",
        "models",
        "sweep",
    }
    assert all(FLOORS[one] == FLOORS[other] for one, other in SAME_FLOOR)
    sorter = graphlib.TopologicalSorter()
    for one, other in SAME_FLOOR:
        sorter.add(one, other)
    sorter.prepare()  # raises where they form a circle


@pytest.mark.parametrize(
    "path, source",
    [
        ("kd_jax/losses/logits.py", "from kd_jax import sweep"),
        ("kd_jax/losses/logits.py", "from kd_jax.train import fit"),
        ("kd_jax/losses/logits.py", "import kd_jax.evaluate.metrics"),
        ("kd_jax/losses/logits.py", "from kd_jax.evaluate.metrics import count"),
        ("kd_jax/train/sampling.py", "from kd_jax.evaluate.bias_correction import margins"),
        ("kd_jax/models/mlp.py", "def f():\n    from kd_jax import train"),
        ("kd_jax/types.py", "from kd_jax import stats"),
        ("kd_jax/losses/logits.py", "from .train import fit"),
        ("kd_jax/utils.py", ""),
        ("kd_jax/train/step.py", "from experiments import common"),
        ("kd_jax/train/step.py", "from absl import flags"),
        ("kd_jax/train/step.py", "import absl.flags"),
        ("kd_jax/train/step.py", "import time"),
        ("kd_jax/train/step.py", "from time import monotonic"),
        ("kd_jax/data/__init__.py", "def f():\n    import tensorflow as tf"),
        ("kd_jax/train/step.py", "def f():\n    print(1)"),
        ("kd_jax/train/step.py", "import flax.linen as nn"),
        ("kd_jax/train/step.py", "from flax import linen"),
        ("experiments/distill.py", "from flax import linen as nn"),
        ("experiments/cli/common.py", "from orbax.checkpoint import v1"),
        ("kd_jax/io/run_folder.py", "import orbax.checkpoint"),
        ("experiments/report.py", "from matplotlib import pyplot"),
        ("kd_jax/data/__init__.py", "import pickle"),
        ("experiments/report.py", "from pickle import loads"),
        ("kd_jax/data/__init__.py", "import numpy as np\nnp.load('a', allow_pickle=True)"),
        ("kd_jax/data/__init__.py", "import numpy as np\nnp.load('a', allow_pickle=flag)"),
        ("kd_jax/models/pretrained.py", "import torch\ntorch.load('a', weights_only=False)"),
        ("kd_jax/models/pretrained.py", "import torch\ntorch.load('a')"),
        ("kd_jax/data/__init__.py", "import yaml\nyaml.load('a')"),
        ("experiments/cli/common.py", "import os\nos.system('a')"),
        ("experiments/cli/common.py", "import subprocess\nsubprocess.run('a', shell=True)"),
        ("experiments/cli/common.py", "__import__('a')"),
        ("experiments/cli/common.py", "eval('1')"),
    ],
)
def test_each_breach_is_seen(path, source):
    assert violations(path, source)


@pytest.mark.parametrize(
    "path, source",
    [
        ("kd_jax/evaluate/bias_correction.py", "from kd_jax.train.sampling import epoch_order"),
        ("kd_jax/evaluate/metrics.py", "from kd_jax.losses import cross_entropy"),
        ("kd_jax/models/__init__.py", "import flax.linen as nn\nfrom kd_jax.models.mlp import mlp"),
        ("kd_jax/io/checkpoint.py", "from orbax.checkpoint import v1 as ocp"),
        ("kd_jax/plots/style.py", "from matplotlib.figure import Figure\nfrom kd_jax import results"),
        (
            "kd_jax/data/__init__.py",
            "import tensorflow_datasets\nimport numpy as np\nnp.load('a', allow_pickle=False)",
        ),
        ("kd_jax/types.py", "import flax.struct"),
        (
            "experiments/distill.py",
            "import time\nfrom absl import flags\nfrom kd_jax import sweep, train\nprint(1)",
        ),
    ],
)
def test_what_the_plan_allows_is_allowed(path, source):
    assert violations(path, source) == []
