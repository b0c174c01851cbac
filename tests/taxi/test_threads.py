"""Threads that share the cores have one each for their linear algebra."""

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from taxi.threads import thread_pool
from tests.conftest import ROOT

WITHOUT_ALGEBRA = "taxi/model.py"  # boosters predict there, with threads of their own


def n_blas_threads(_: int = 0) -> set[int]:
    assert np.eye(2).sum() == 2  # numpy brings the BLAS
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_in_a_pool_linear_algebra_has_one_thread_and_afterwards_those_it_had() -> None:
    with threadpool_limits(2, user_api="blas"):
        with thread_pool(2) as threads:
            assert [*threads.map(n_blas_threads, range(2))] == [{1}, {1}]
        assert n_blas_threads() == {2}


def test_pools_of_threads_come_from_one_place() -> None:
    opens = {
        str(path.relative_to(ROOT))
        for tree in ("taxi", "steps")
        for path in (ROOT / tree).rglob("*.py")
        if "ThreadPoolExecutor(" in path.read_text()
    }
    assert opens == {"taxi/threads.py", WITHOUT_ALGEBRA}
