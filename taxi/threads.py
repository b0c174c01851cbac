"""Thread pools with at most one thread per core, and a limit on the threads of BLAS."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from joblib import cpu_count
from threadpoolctl import threadpool_limits

# Threads of one booster wait for each other hundreds of times a round: with fewer rows per thread,
# waiting costs more than they save. `python -m bench flat_threads` measures it
ROWS_PER_THREAD = 500_000


def open_pool(n_threads: int | None = None) -> ThreadPoolExecutor:
    """Open a pool for work without linear algebra.

    Args:
        n_threads: maximum number of threads; None for one per core.
    """
    return ThreadPoolExecutor(n_threads or cpu_count())


@contextmanager
def thread_pool(n_threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Open a pool for work with linear algebra; meanwhile BLAS starts no threads of its own.

    Two BLAS threads in each thread of a pool wait for each other: the bootstrap took five times the
    CPU time.

    Args:
        n_threads: maximum number of threads; None for one per core.
    """
    with threadpool_limits(1, user_api="blas"), open_pool(n_threads) as threads:
        yield threads


def assign_threads(n_threads: int, n_jobs: int, n_rows: int) -> list[int]:
    """Assign threads to jobs that start as others end: one each, and all to the last ones.

    The last jobs, too few to keep all threads busy, share them.

    Args:
        n_threads: number of threads.
        n_jobs: number of jobs, each of which trains a booster.
        n_rows: of every job, which gets at most a thread per ROWS_PER_THREAD of them.
    Returns:
        The number of threads of each job.
    """
    n_last = n_jobs % n_threads
    max_threads = max(n_rows // ROWS_PER_THREAD, 1)
    last = [min((n_threads + index) // n_last, max_threads) for index in range(n_last)]
    return [1] * (n_jobs - n_last) + last
