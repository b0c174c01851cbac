"""A connected cluster: runs tasks on its workers, and says why if it no longer can."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

from distributed import Client, KilledWorker
from distributed.utils import get_ip

from storage import StorageError
from storage.cluster import held_data
from storage.cluster.addresses import TIMEOUT_S, is_worker_reachable, read_address
from storage.cluster.rpc import ANSWER_TIMEOUT_S, send_request, start_request
from storage.cluster.tasks import ByValue, pack, run_task, unpack, unpack_data, unpack_one

PATIENCE_S = 300.0  # for dead workers to be replaced
RETRIES = 3  # of fetching data, if the network fails briefly
MORE_MEMORY = "Too little memory? Give each worker more of it with --memory-limit."
NO_ANSWER = f"has not answered within {ANSWER_TIMEOUT_S} s, or a worker of it"
VIA_SCHEDULER = "the scheduler keeps the data for them"
GPU = "GPU"  # the resource that workers with one declare: dask worker --resources GPU=1


class Cluster:
    """A connected cluster: tasks go to its workers, one per thread or per GPU."""

    def __init__(self, client: Client, address: str, *, on_gpus: bool) -> None:
        self.client = client
        self.address = address
        self.lost = ""  # why the cluster was given up; empty until then
        self.open: set[Future[Any]] = set()
        self.tasks: dict[Callable[..., Any], ByValue] = {}
        self.keeps_data = False  # whether the scheduler does, which is printed once
        self.needed: Sequence[str] = ()  # addresses of workers that no other can replace
        places = send_request(client.scheduler_info)["workers"]
        workers = places.values()
        # results go through the scheduler only if some worker cannot be reached from here
        client.direct_to_workers = all(map(is_worker_reachable, places))
        if on_gpus:
            self.n_workers = int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        else:
            self.n_workers = sum(worker["nthreads"] for worker in workers)
        # Dask moves a task whose worker dies to another one
        self.task_needs: dict[str, Any] = {"resources": {GPU: 1}} if on_gpus else {}
        self.executor = client.get_executor(pure=False, **self.task_needs)
        self.connection = client.submit(int, pure=False)  # cancelled if that is lost

    @contextmanager
    def hold(self, data: Any, worker: str = "") -> Iterator[Any]:
        """Hold plain data for the workers; yields a handle that tasks take as first argument.

        A task fetches the data from this process, so what is lost with a worker is fetched again.
        Workers also pass it on to each other. None of it goes through the scheduler, unless some
        worker cannot reach this machine: then it is part of the task, which the scheduler keeps.

        Args:
            data: what to hold.
            worker: address of the worker that fetches and keeps it, if alive; empty = any.
        """
        place, _ = read_address(self.address)
        with (
            self._giving_up_on_timeout(),
            socket.create_connection(place, timeout=TIMEOUT_S) as line,
        ):
            hosts = (line.getsockname()[0], get_ip())  # of this machine
        with held_data.serve(pack(data), hosts) as held:
            ask = ByValue(partial(held_data.is_reachable, held))
            with self._giving_up_on_timeout():
                reachable = send_request(self.client.run, ask, on_error="return").values()
            if all(answer is True for answer in reachable):
                task = ByValue(lambda: unpack_data(held_data.fetch(held)))
            else:
                self._print_where_held()
                task = ByValue(lambda: data)
            where = {"workers": [worker], "allow_other_workers": True} if worker else {}
            yield self.client.submit(task, pure=False, retries=RETRIES, **where)

    def _print_where_held(self) -> None:
        """Print where the data is kept, but once: a refit holds several parts."""
        if not self.keeps_data:
            self.keeps_data = True
            print(f"The workers of {self.address} cannot reach this machine: {VIA_SCHEDULER}.")

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a function on some worker with these arguments, the first of which may be a handle.

        The future is cancelled if the cluster is lost, for whatever reason.
        """
        done = Future[Any]()
        self.open.add(done)
        ended = self.executor.submit(*self._pack_task(function, arguments))
        ended.add_done_callback(partial(self._pass_result_on, done, unpack))
        return done

    def submit_kept(
        self, function: Callable[..., Any], *arguments: Any
    ) -> Callable[[], Future[Any]]:
        """Run a function like submit; the result stays on its worker, which may spill it to disk.

        Returns:
            A function that begins to fetch the result; its future is cancelled like submit's.
        """
        task = self._pack_task(function, arguments)
        kept = self.client.submit(*task, pure=False, **self.task_needs)

        def fetch() -> Future[Any]:
            return self.run_coroutine(self.client.gather([kept], asynchronous=True), unpack_one)

        return fetch

    def _pack_task(
        self, function: Callable[..., Any], arguments: Sequence[Any]
    ) -> tuple[ByValue, Any, bytes]:
        first, *others = arguments
        if function not in self.tasks:  # packing its code takes as long as cleaning a small month
            self.tasks[function] = ByValue(partial(run_task, function))
        return self.tasks[function], first, pack(others)

    def run_coroutine(
        self, work: Coroutine[Any, Any, Any], unpack: Callable[[Any], Any] = lambda result: result
    ) -> Future[Any]:
        """Run a coroutine of the client; its future is cancelled like submit's."""
        done = Future[Any]()
        self.open.add(done)
        loop: Any = self.client.loop
        ended = asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop)
        ended.add_done_callback(partial(self._pass_result_on, done, unpack))
        return done

    def _pass_result_on(
        self, done: Future[Any], unpack: Callable[[Any], Any], ended: Future[Any]
    ) -> None:
        error = CancelledError() if ended.cancelled() else ended.exception()
        if isinstance(error, KilledWorker):
            self.give_up(
                f"{error.allowed_failures + 1} workers of the Dask cluster at {self.address} died, "
                f"one after the other, at one task. {MORE_MEMORY}"
            )
        elif isinstance(error, CancelledError):
            self._give_up_unreachable()
        elif self._claim(done):
            try:
                done.set_result(unpack(ended.result()))
            except BaseException as raised:  # noqa: BLE001  raised to the caller who waits
                done.set_exception(raised)

    def give_up(self, reason: str) -> None:
        """Give the cluster up, and cancel all open futures."""
        self.lost = self.lost or reason
        for done in filter(self._claim, list(self.open)):
            done.cancel()
            done.set_running_or_notify_cancel()  # wakes whoever waits for it

    def _claim(self, done: Future[Any]) -> bool:
        """Whether the caller may end a future: only the first of several threads may."""
        try:
            self.open.remove(done)
        except KeyError:
            return False
        return True

    def _give_up_unreachable(self, what: str = "went away") -> None:
        self.give_up(f"The Dask cluster at {self.address} {what}")

    @contextmanager
    def _giving_up_on_timeout(self) -> Iterator[None]:
        """Give the cluster up if it does not answer a request of the body.

        Raises:
            CancelledError: it does not; futures of a lost cluster raise it too, see loss_as_error.
        """
        try:
            yield
        except OSError as error:
            self._give_up_unreachable(NO_ANSWER if isinstance(error, TimeoutError) else "went away")
            raise CancelledError from error

    @contextmanager
    def loss_as_error(self, hint: Callable[[], str]) -> Iterator[None]:
        """Turn the loss of the cluster into a one-line error, which ends with a hint.

        Raises:
            StorageError: the cluster is lost.
        """
        try:
            yield
        except CancelledError as error:
            raise StorageError(f"{self.lost.rstrip('.')}; {hint()}") from error

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Give the cluster up if no worker is able to do anything for PATIENCE_S."""
        stop = Event()
        watch = Thread(target=self._watch, args=[stop], daemon=True)
        watch.start()
        try:
            yield
        finally:
            stop.set()
            watch.join()

    def _watch(self, stop: Event) -> None:
        last_able, info_future = time.monotonic(), start_request(self.client.scheduler_info)
        while not stop.wait(PATIENCE_S / 20):
            if self.connection.cancelled():  # a result on its way would be awaited for ever
                self._give_up_unreachable()
                return
            places = None  # the scheduler has not answered, and may hang
            if info_future.done():
                places = {} if info_future.exception() else info_future.result().get("workers", {})
                info_future = start_request(self.client.scheduler_info)
            if not self.open or (places and self._can_work(places)):
                last_able = time.monotonic()
            elif time.monotonic() - last_able > PATIENCE_S:
                self.give_up(self._describe(places))
                return

    def _can_work(self, places: Mapping[str, Any]) -> bool:
        """Whether these workers, address -> state, can do what is asked of them."""
        if self.needed:
            return all(place in places and can_take_tasks(places[place]) for place in self.needed)
        return any(map(can_take_tasks, places.values()))

    def _describe(self, places: Mapping[str, Any] | None) -> str:
        """Say why nothing goes on, from the scheduler's last answer, if any."""
        minutes = f"for {PATIENCE_S / 60:.0f} minutes"
        if places is None:
            return f"The scheduler of the Dask cluster at {self.address} does not answer {minutes}"
        paused = "not all there or paused" if self.needed else "all paused"
        state, hint = (paused, f". {MORE_MEMORY}") if places else ("all gone", "")
        return f"The workers of the Dask cluster at {self.address} are {state} {minutes}{hint}"


def can_take_tasks(worker: Mapping[str, Any]) -> bool:
    """Whether a worker takes tasks or is running one; paused for lack of memory, it takes none."""
    return bool(worker["status"] == "running" or worker.get("metrics", {}).get("executing"))
