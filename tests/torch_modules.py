"""torch and the packages beside it that a test compares with."""

import importlib
import os
from typing import Any

import pytest

from experiments.benchmarks.torchdistill_pairs import import_torchvision


def import_or_skip(name: str) -> tuple[Any, Any]:
    """(torch, the module `name` of torchvision or torchdistill). Where it is not installed, the test is
    skipped, or fails if KD_JAX_EXPECT_TORCHVISION=1."""
    try:
        import torch

        import_torchvision()
        return torch, importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("KD_JAX_EXPECT_TORCHVISION") == "1":
            pytest.fail(f"{name} cannot be imported: {error}")
        pytest.skip(f"{name} cannot be imported: {error}")
