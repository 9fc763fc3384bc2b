"""What all end-to-end tests share."""

from collections.abc import Iterator

import pytest

from tests.support.pictures import blank_pictures


@pytest.fixture(scope="package", autouse=True)
def quick_pictures() -> Iterator[None]:
    """Draw no pixels, which take a third of a tiny run's time."""
    with blank_pictures():
        yield
