"""`import kd_jax`: the public names are there, and cost nothing until they are used."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import kd_jax


def declared() -> dict[str, str]:
    """What a type checker sees: public name -> the module or member that it is imported from."""
    tree = ast.parse(Path(kd_jax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_a_type_checker_sees_the_same_names():
    assert sorted(declared()) == kd_jax.__all__ and set(kd_jax.__all__) <= set(dir(kd_jax))


@pytest.mark.parametrize("name", kd_jax.__all__)
def test_each_name_is_what_the_type_checker_takes_it_for(name):
    module, _, member = declared()[name].rpartition(".")
    expected = getattr(importlib.import_module(module), member, None)
    found = getattr(kd_jax, name)
    assert found is (importlib.import_module(f"{module}.{member}") if expected is None else expected)
    assert inspect.ismodule(found) or found.__doc__


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="module 'kd_jax' has no attribute 'Trainer'"):
        kd_jax.Trainer  # noqa: B018
    with pytest.raises(ImportError):
        from kd_jax import utils  # noqa: F401


def test_importing_it_imports_no_other_package():
    """In a process of its own: not even JAX, whose import is slow; a name then imports what it needs."""
    code = "import sys, kd_jax; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)\n"
    code += "kd_jax.InputError; assert 'jax' not in sys.modules\n"
    code += "kd_jax.Table; assert 'jax' in sys.modules and 'optax' not in sys.modules"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0
