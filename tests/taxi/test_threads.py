"""Threads share the cores, and their linear algebra uses one thread each."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from taxi import threads
from taxi.threads import ROWS_PER_THREAD, assign_threads, open_pool, thread_pool
from tests.conftest import ROOT


def n_blas_threads(_: int = 0) -> set[int]:
    assert np.eye(2).sum() == 2  # numpy loads the BLAS
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_in_a_pool_linear_algebra_has_one_thread_and_afterwards_those_it_had() -> None:
    with threadpool_limits(2, user_api="blas"):
        with thread_pool(2) as pool:
            assert [*pool.map(n_blas_threads, range(2))] == [{1}, {1}]
        assert n_blas_threads() == {2}


def test_pools_of_threads_come_from_one_place() -> None:
    opens = {
        str(path.relative_to(ROOT))
        for tree in ("taxi", "steps")
        for path in (ROOT / tree).rglob("*.py")
        if "ThreadPoolExecutor(" in path.read_text()
    }
    assert opens == {"taxi/threads.py"}


def test_pools_have_a_thread_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_count", lambda: 3)
    with thread_pool() as pool, open_pool() as other:
        assert pool._max_workers == other._max_workers == 3


@pytest.mark.parametrize(
    ("n_threads", "n_jobs", "n_rows", "shares"),
    [
        (1, 3, 10 * ROWS_PER_THREAD, [1, 1, 1]),
        (2, 1, 2 * ROWS_PER_THREAD, [2]),
        (2, 1, 2 * ROWS_PER_THREAD - 1, [1]),  # too few rows for a second thread
        (2, 3, 2 * ROWS_PER_THREAD, [1, 1, 2]),
        (2, 4, 2 * ROWS_PER_THREAD, [1, 1, 1, 1]),
        (16, 4, 99 * ROWS_PER_THREAD, [4, 4, 4, 4]),
        (16, 3, 99 * ROWS_PER_THREAD, [5, 5, 6]),
        (16, 3, 2 * ROWS_PER_THREAD, [2, 2, 2]),
        (4, 0, 99, []),
    ],
)
def test_boosters_share_all_threads_where_they_have_the_rows_for_them(
    n_threads: int, n_jobs: int, n_rows: int, shares: list[int]
) -> None:
    assert assign_threads(n_threads, n_jobs, n_rows) == shares
