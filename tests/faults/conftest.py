"""The undisturbed runs that the quick portion of the campaign compares with: one small teacher."""

from collections.abc import Iterator

import pytest

from tests.faults.children import Children
from tests.faults.killed import Whole


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Iterator[Whole]:
    with Children(tmp_path_factory.mktemp("faults")) as children:
        yield Whole(children, ["train_teacher"], times=1)


@pytest.fixture
def fresh(whole) -> Iterator[Whole]:
    """With no run that another test left."""
    whole.clear()
    yield whole
    whole.clear()
