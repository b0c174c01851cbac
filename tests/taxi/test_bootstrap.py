import tracemalloc

import numpy as np
import pytest

from taxi import bootstrap


def make_errors(n: int = 2_000, better_by: float = 0.0) -> tuple[np.ndarray, ...]:
    """Make up measured minutes, and two predictions with mostly common errors."""
    rng = np.random.default_rng(1)
    minutes = rng.uniform(1, 60, n)
    hard = rng.normal(0, 5, n)
    candidate = minutes + hard + rng.normal(0, 0.5, n)
    champion = minutes + (1 + better_by) * hard + rng.normal(0, 0.5, n)
    return minutes, candidate, champion


def drawn_with_replacement(columns: np.ndarray, n_resamples: int) -> np.ndarray:
    """The plain bootstrap, row by row, with which the fast one must agree."""
    rng = np.random.default_rng(2)
    n = len(columns)
    return np.array([columns[rng.integers(0, n, n)].mean(axis=0) for _ in range(n_resamples)])


def test_resampled_means_spread_as_those_of_rows_drawn_with_replacement() -> None:
    minutes, candidate, champion = make_errors()
    columns = np.stack([(candidate - minutes) ** 2, (champion - minutes) ** 2], axis=1)
    fast = bootstrap.resampled_means(columns.__getitem__, 2_000, seed=3, n_resamples=4_000)
    plain = drawn_with_replacement(columns, 4_000)
    assert fast.mean(axis=0) == pytest.approx(plain.mean(axis=0), rel=0.003)
    assert np.cov(fast.T) == pytest.approx(np.cov(plain.T), rel=0.1)


def test_of_few_rows_a_resample_that_has_none_of_them_is_left_out() -> None:
    column = np.array([[1.0], [2.0], [3.0]])
    means = bootstrap.resampled_means(column.__getitem__, 3, seed=3, n_resamples=1_000)
    assert np.isfinite(means).all()
    assert len(means) == pytest.approx(1_000 * (1 - np.exp(-3)), abs=30)


def test_the_counts_are_poisson_with_mean_1() -> None:
    stream, numbers = bootstrap._Stream(np.random.SeedSequence(4)), np.empty(320_000, np.uint16)
    stream.fill(numbers)
    row_counts = bootstrap._counts(numbers.reshape(20_000, 16))
    assert row_counts.mean() == pytest.approx(1, abs=0.01)
    assert row_counts.var() == pytest.approx(1, abs=0.02)
    assert (row_counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)
    assert np.corrcoef(row_counts.T)[0, 1] == pytest.approx(0, abs=0.03)


def test_the_interval_of_a_difference_is_narrower_than_those_of_its_parts() -> None:
    minutes, candidate, champion = make_errors(better_by=0.02)
    found = bootstrap.rmse_improvement(minutes, candidate, champion, seed=5)
    alone = bootstrap.score_intervals(minutes, candidate, seed=5)["rmse"]
    assert found.low < found.value < found.high
    assert found.high - found.low < (alone.high - alone.low) / 3


@pytest.mark.parametrize(("better_by", "sign"), [(0.05, 1), (-0.05, -1), (0.0, 0)])
def test_the_interval_excludes_zero_where_one_model_is_better(better_by: float, sign: int) -> None:
    found = bootstrap.rmse_improvement(*make_errors(better_by=better_by), seed=6)
    assert (found.low > 0, found.high < 0) == (sign > 0, sign < 0)


def test_a_model_is_no_better_than_itself() -> None:
    minutes, candidate, _ = make_errors()
    assert bootstrap.rmse_improvement(minutes, candidate, candidate, seed=7) == (0.0, 0.0, 0.0)


def test_the_scores_are_those_of_the_rows_and_lie_in_their_intervals() -> None:
    minutes, candidate, _ = make_errors()
    found = bootstrap.score_intervals(minutes, candidate, seed=8)
    error = candidate - minutes
    assert found["rmse"].value == pytest.approx(np.sqrt(np.mean(error**2)))
    assert found["mae"].value == pytest.approx(np.abs(error).mean())
    assert found["r2"].value == pytest.approx(1 - np.mean(error**2) / minutes.var())
    assert all(score.low < score.value < score.high for score in found.values())


def test_each_score_of_a_resample_is_that_of_its_rows() -> None:
    minutes, candidate, _ = make_errors(n=9)
    rows = np.array([0, 0, 0, 4, 7])  # their mean is not that of all nine
    error, centred = (candidate - minutes)[rows], (minutes - minutes.mean())[rows]
    columns = np.stack([error**2, np.abs(error), centred, centred**2], axis=1)
    found = {
        name: score(columns.mean(axis=0)[None])[0] for name, score in bootstrap.STATISTICS.items()
    }
    assert found == pytest.approx(
        {
            "rmse": np.sqrt(np.mean(error**2)),
            "mae": np.abs(error).mean(),
            "r2": 1 - (error**2).sum() / ((minutes[rows] - minutes[rows].mean()) ** 2).sum(),
        }
    )


@pytest.mark.filterwarnings("error")
def test_a_resample_in_which_all_trips_took_as_long_has_no_r2_and_is_left_out() -> None:
    minutes, predicted = np.array([4.0, 9.0, 30.0]), np.array([5.0, 8.0, 20.0])
    found = bootstrap.score_intervals(minutes, predicted, seed=8)["r2"]
    assert np.isfinite(found).all() and found.low < found.value < found.high
    same = bootstrap.score_intervals(np.full(3, 10.0), predicted, seed=8)["r2"]
    assert same == (-np.inf, -np.inf, -np.inf)


def test_the_seed_decides_the_interval() -> None:
    first, again, other = (bootstrap.rmse_improvement(*make_errors(), seed=s) for s in (9, 9, 10))
    assert first == again != other


def test_one_absurd_prediction_does_not_drown_the_others() -> None:
    minutes, candidate, champion = make_errors(better_by=0.05)
    champion[0] = 1e6
    found = bootstrap.rmse_improvement(minutes, candidate, champion, seed=11)
    assert found.low > 0.1


def test_blocks_of_rows_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    minutes, candidate, champion = make_errors(n=1_003)  # not divisible by a block size or by four
    whole = [
        bootstrap.rmse_improvement(minutes, candidate, champion, seed=12),
        bootstrap.score_intervals(minutes, candidate, seed=12),
    ]
    monkeypatch.setattr(bootstrap, "BLOCK_ROWS", 101)
    monkeypatch.setattr(bootstrap, "CACHED_ROWS", 30)
    monkeypatch.setattr(bootstrap, "STREAMS_PER_TASK", 200)
    blocks = [
        bootstrap.rmse_improvement(minutes, candidate, champion, seed=12),
        bootstrap.score_intervals(minutes, candidate, seed=12),
    ]
    assert blocks == whole


def test_intervals_are_those_that_all_rows_at_once_gave() -> None:
    minutes, candidate, champion = make_errors(n=1_003)
    gained = bootstrap.rmse_improvement(minutes, candidate, champion, seed=12)
    rmse = bootstrap.score_intervals(minutes, candidate, seed=12)["rmse"]
    assert gained == pytest.approx((-0.009292524176852, -0.050566626413579, 0.032238880280144))
    assert rmse == pytest.approx((5.155854987080121, 4.938756965442303, 5.374125919756711))


def test_the_memory_of_resamples_does_not_grow_with_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK_ROWS", 4_096)

    def peak(n: int) -> int:
        tracemalloc.start()
        bootstrap.resampled_means(
            lambda rows: np.ones((rows.stop - rows.start, 1)), n, seed=1, n_resamples=16
        )
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    # ten times the rows; what the first call imports and keeps is a fifth of the peak
    assert peak(400_000) < 2 * peak(40_000)
