import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from taxi import fitting
from taxi.fitting import BoosterSet, train_locally
from taxi.recipes import Member
from taxi.rows import TrainingData


def train_slowly(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]
) -> list[tuple[float, float]]:
    """Train three boosters that take a moment each; return when each began and ended."""
    spans = []

    def train(*_: Any) -> None:
        begun = time.monotonic()
        time.sleep(0.1)
        spans.append((begun, time.monotonic()))

    monkeypatch.setattr(fitting, "train_member", train)
    part = TrainingData(np.eye(4, dtype=np.float32), np.ones(4, np.float32), None)
    members = [Member(parameters | {"seed": seed}, rounds=1) for seed in range(3)]
    train_locally([BoosterSet(members, 8, lambda: part)], n_threads=3)
    return sorted(spans)


def overlap(spans: list[tuple[float, float]]) -> bool:
    return any(begun < ended for (_, ended), (begun, _) in pairwise(spans))


def test_a_gpu_trains_one_booster_of_a_model_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert overlap(train_slowly(monkeypatch, {}))
    assert not overlap(train_slowly(monkeypatch, {"device": "cuda"}))
