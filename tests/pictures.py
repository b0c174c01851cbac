"""Skip drawing in tests that are not about pictures: it is half of what a step costs."""

from functools import cache

import pytest
from matplotlib.figure import Figure

from storage.tracking import artifacts

draw = artifacts.to_png


@cache
def blank() -> bytes:
    return draw(Figure(figsize=(0.1, 0.1)))


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of this process blank, unless the test is marked `pictures`."""
    if not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(artifacts, "to_png", lambda figure, dpi=None: blank())
