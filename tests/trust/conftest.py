"""A process that has imported everything, from which the workers of a module's tests fork."""

from collections.abc import Iterator

import pytest

from fusewright.run.verify import Nursery


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as started:
        yield started
