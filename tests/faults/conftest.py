"""What the quick portions of the campaign share: a process that runs entry points, and undisturbed runs."""

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.experiments.launcher import Launcher
from tests.faults import bad_input
from tests.faults.children import Children
from tests.faults.killed import Whole


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The entry points' working folder, and their ~."""
    folder = tmp_path_factory.mktemp("faults") / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def launch(home):
    given = bad_input.environment(home) | {"JAX_COMPILATION_CACHE_DIR": f"{home}-compiled"}
    with mock.patch.dict(
        os.environ, given
    ):  # for its process alone: other tests of this session have their own
        launcher = Launcher(home)
    with launcher:
        yield launcher


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Iterator[Whole]:
    """The undisturbed runs that those which were killed are compared with: one small teacher."""
    with Children(tmp_path_factory.mktemp("killed")) as children:
        yield Whole(children, ["train_teacher"], times=1)


@pytest.fixture
def fresh(whole) -> Iterator[Whole]:
    """With no run that another test left."""
    whole.clear()
    yield whole
    whole.clear()
