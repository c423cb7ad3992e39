"""torch and the packages beside it that a test compares with."""

import importlib
import os
from typing import Any

import pytest

KEPT: list = []
"""torch forgets a library's definitions with the object."""


def import_or_skip(name: str) -> tuple[Any, Any]:
    """(torch, the module `name` of torchvision or torchdistill). Where it is not installed, the test is
    skipped, or fails if KD_JAX_EXPECT_TORCHVISION=1."""
    try:
        return _import(name)
    except ImportError as error:
        if os.environ.get("KD_JAX_EXPECT_TORCHVISION") == "1":
            pytest.fail(f"{name} cannot be imported: {error}")
        pytest.skip(f"{name} cannot be imported: {error}")


def _import(name: str) -> tuple[Any, Any]:
    """Made for another build of torch, torchvision cannot load its compiled operators, but asks for the
    schemas of two of them; no classifier and no loss calls any."""
    import torch

    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401

        KEPT.append(library)
    return torch, importlib.import_module(name)
