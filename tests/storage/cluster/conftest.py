"""What tests of clusters share."""

from collections.abc import Callable, Iterator
from threading import Event

import pytest


@pytest.fixture
def hanging() -> Iterator[Callable[..., None]]:
    """Yield a function that hangs until the test is over."""
    over = Event()
    yield lambda *_, **__: over.wait() and None
    over.set()
