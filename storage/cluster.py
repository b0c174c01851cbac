"""An existing Dask cluster as an executor, and what a worker needs to run this checkout's code."""

import asyncio
import io
import logging
import pickle
import socket
import sys
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from threading import Event, Lock, Thread
from types import ModuleType
from typing import Any

import cloudpickle
from distributed import Client, KilledWorker, Security, get_worker
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.core import connect
from distributed.core import send_recv
from distributed.utils import get_ip
from distributed.versions import VersionMismatchWarning, get_versions

from storage import StorageError, held_data, one_line
from storage.environment import OWN
from storage.uris import without_user

TIMEOUT_S = 5  # a scheduler that is there answers at once
REACH_S = 1  # and so does a worker
ANSWER_S = 60  # within which all workers do what they are asked, however busy they are
PATIENCE_S = 300.0  # within which workers that died have others in their place
RETRIES = 3  # of fetching data, where the network fails for a moment
SCHEMES = {"tcp": False, "tls": True, "ws": False, "wss": True}  # -> whether it is encrypted
MORE_MEMORY = "Too little memory? Give each worker more of it with --memory-limit."
NO_ANSWER = f"has not answered within {ANSWER_S} s, or a worker of it"
VIA_SCHEDULER = "the scheduler keeps the data for them"
# without which no other message can be read: code of another Python may end a worker
SPOKEN = ("python", "distributed", "cloudpickle")
REQUIREMENTS = "Start scheduler and workers in the environment of requirements.txt."
GPU = "GPU"  # the resource by which workers offer theirs: dask worker --resources GPU=1


class _ByValue:
    """A function that travels with its code: distributed would send no more than its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.packed = cloudpickle.dumps(function)

    def __call__(self, *arguments: Any) -> Any:
        return cloudpickle.loads(self.packed)(*arguments)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return cloudpickle.loads, (self.packed,)


class _ByName(pickle.Pickler):
    """Packs what a task returns: its classes by their names, which mean this checkout's here.

    Packed with their code, as Dask would, they would put the worker's functions into the classes of
    the same names here.
    """

    def persistent_id(self, thing: Any) -> tuple[str, str] | None:
        is_own = isinstance(thing, type) and _is_own(thing)
        return (thing.__module__, thing.__qualname__) if is_own else None


class _Named(pickle.Unpickler):
    def persistent_load(self, name: tuple[str, str]) -> Any:
        module, path = name
        return attrgetter(path)(import_module(module))


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in OWN


def _do(function: Callable[..., Any], first: Any, others: bytes) -> bytes:
    """Call a function on a worker; packs what it returns, or the error of this project's."""
    try:
        returned, error = function(first, *cloudpickle.loads(others)), None
    except Exception as raised:
        if not _is_own(type(raised)):
            raise  # with its traceback, which Dask brings
        returned, error = None, raised
    packed = io.BytesIO()
    _ByName(packed, pickle.HIGHEST_PROTOCOL).dump((returned, error))
    return packed.getvalue()


def _unpack(packed: bytes) -> Any:
    """Return what a function on a worker has returned, or raise what it has raised."""
    returned, error = _Named(io.BytesIO(packed)).load()
    if error:
        raise error
    return returned


def _unpack_one(packed: Sequence[bytes]) -> Any:
    return _unpack(packed[0])


class Cluster:
    """A connected cluster: tasks go to its workers, one per thread or per GPU."""

    def __init__(self, client: Client, address: str, *, on_gpus: bool) -> None:
        self.client = client
        self.address = address
        self.lost = ""  # why no task is done any more, once that is so
        self.open: set[Future[Any]] = set()
        self.tasks: dict[Callable[..., Any], _ByValue] = {}
        self.keeps_data = False  # the scheduler, as has been said
        self.needed: Sequence[str] = ()  # addresses of workers that no other can stand in for
        places = _answered(client.scheduler_info)["workers"]
        workers = places.values()
        # what tasks return goes through the scheduler only where some worker cannot be reached
        client.direct_to_workers = all(map(_is_reached, places))
        if on_gpus:
            self.n_workers = int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        else:
            self.n_workers = sum(worker["nthreads"] for worker in workers)
        # a task whose worker dies goes to another one by itself
        self.task_needs: dict[str, Any] = {"resources": {GPU: 1}} if on_gpus else {}
        self.executor = client.get_executor(pure=False, **self.task_needs)

    @contextmanager
    def hold(self, data: Any, worker: str = "") -> Iterator[Any]:
        """Keep plain data for the workers; tasks are given it through the handle that is yielded.

        Where a worker's address is given, that one fetches it, unless it has died, and keeps it.

        A task fetches it from this process, so what dies with a worker is fetched again. It goes
        from worker to worker, too, and none of it through the scheduler, unless some worker cannot
        reach this machine: then it is part of the task, which the scheduler keeps.
        """
        place, _ = _read_address(self.address)
        with self._in_reach(), socket.create_connection(place, timeout=TIMEOUT_S) as line:
            hosts = (line.getsockname()[0], get_ip())  # of this end of the line
        with held_data.serve(cloudpickle.dumps(data), hosts) as held:
            ask = _ByValue(partial(held_data.is_reached, held))
            with self._in_reach():
                reached = _answered(self.client.run, ask, on_error="return").values()
            if all(answer is True for answer in reached):
                task = _ByValue(lambda: cloudpickle.loads(held_data.fetch(held)))
            else:
                self._say_kept()
                task = _ByValue(lambda: data)
            where = {"workers": [worker], "allow_other_workers": True} if worker else {}
            yield self.client.submit(task, pure=False, retries=RETRIES, **where)

    def _say_kept(self) -> None:
        """Say once where the data is, of which a refit holds several parts."""
        if not self.keeps_data:
            self.keeps_data = True
            print(f"The workers of {self.address} cannot reach this machine: {VIA_SCHEDULER}.")

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a function on some worker with these arguments, the first of which may be a handle.

        The future is cancelled when the cluster is lost, whatever the reason.
        """
        done = Future[Any]()
        self.open.add(done)
        ended = self.executor.submit(*self._pack_task(function, arguments))
        ended.add_done_callback(partial(self._hand_over, done, _unpack))
        return done

    def submit_kept(
        self, function: Callable[..., Any], *arguments: Any
    ) -> Callable[[], Future[Any]]:
        """Run a function like submit; what it returns stays with its worker, who may spill it.

        Returns:
            Begins to fetch it; its future is cancelled as that of submit.
        """
        task = self._pack_task(function, arguments)
        kept = self.client.submit(*task, pure=False, **self.task_needs)

        def fetch() -> Future[Any]:
            return self.follow(self.client.gather([kept], asynchronous=True), _unpack_one)

        return fetch

    def _pack_task(
        self, function: Callable[..., Any], arguments: Sequence[Any]
    ) -> tuple[_ByValue, Any, bytes]:
        first, *others = arguments
        if function not in self.tasks:  # to pack its code takes as long as to clean a small month
            self.tasks[function] = _ByValue(partial(_do, function))
        return self.tasks[function], first, cloudpickle.dumps(others)

    def follow(
        self, work: Coroutine[Any, Any, Any], unpack: Callable[[Any], Any] = lambda result: result
    ) -> Future[Any]:
        """Let the client do work of its own; its future is cancelled as that of submit."""
        done = Future[Any]()
        self.open.add(done)
        loop: Any = self.client.loop
        ended = asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop)
        ended.add_done_callback(partial(self._hand_over, done, unpack))
        return done

    def _hand_over(
        self, done: Future[Any], unpack: Callable[[Any], Any], ended: Future[Any]
    ) -> None:
        error = CancelledError() if ended.cancelled() else ended.exception()
        if isinstance(error, KilledWorker):
            self.lose(
                f"{error.allowed_failures + 1} workers of the Dask cluster at {self.address} died, "
                f"one after the other, at one task. {MORE_MEMORY}"
            )
        elif isinstance(error, CancelledError):
            self._lose_gone()
        elif self._claim(done):
            try:
                done.set_result(unpack(ended.result()))
            except BaseException as raised:  # noqa: BLE001  who waits is told, and nobody else can be
                done.set_exception(raised)

    def lose(self, reason: str) -> None:
        """Give the cluster up: what still waits for it is cancelled."""
        self.lost = self.lost or reason
        for done in filter(self._claim, list(self.open)):
            done.cancel()
            done.set_running_or_notify_cancel()  # wakes who waits for it

    def _claim(self, done: Future[Any]) -> bool:
        """Whether it is for the caller to end a future: several threads might."""
        try:
            self.open.remove(done)
        except KeyError:
            return False
        return True

    def _lose_gone(self, what: str = "went away") -> None:
        self.lose(f"The Dask cluster at {self.address} {what}")

    @contextmanager
    def _in_reach(self) -> Iterator[None]:
        """Give the cluster up where the scheduler is asked something and does not answer.

        Raises:
            CancelledError: it does not, as what waits for the cluster raises; see gone_as.
        """
        try:
            yield
        except OSError as error:
            self._lose_gone(NO_ANSWER if isinstance(error, TimeoutError) else "went away")
            raise CancelledError from error

    @contextmanager
    def gone_as(self, hint: Callable[[], str]) -> Iterator[None]:
        """Turn the loss of the cluster into one line, which ends with a hint.

        Raises:
            StorageError: no task is done any more.
        """
        try:
            yield
        except CancelledError as error:
            raise StorageError(f"{self.lost.rstrip('.')}; {hint()}") from error

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Give the cluster up when for PATIENCE_S no worker could have done anything."""
        stop = Event()
        watch = Thread(target=self._watch, args=[stop], daemon=True)
        watch.start()
        try:
            yield
        finally:
            stop.set()
            watch.join()

    def _watch(self, stop: Event) -> None:
        able, asked = time.monotonic(), _begin(self.client.scheduler_info)
        while not stop.wait(PATIENCE_S / 20):
            places = None  # the scheduler, which may hang, has not answered
            if asked.done():
                places = {} if asked.exception() else asked.result().get("workers", {})
                asked = _begin(self.client.scheduler_info)
            if not self.open or (places and self._goes_on(places)):
                able = time.monotonic()
            elif time.monotonic() - able > PATIENCE_S:
                self.lose(self._describe(places))
                return

    def _goes_on(self, places: Mapping[str, Any]) -> bool:
        """Whether the workers that there are, by their addresses, can do what is asked of them."""
        if self.needed:
            return all(place in places and is_able(places[place]) for place in self.needed)
        return any(map(is_able, places.values()))

    def _describe(self, places: Mapping[str, Any] | None) -> str:
        """Say why nothing goes on, by what the scheduler has told, if anything."""
        minutes = f"for {PATIENCE_S / 60:.0f} minutes"
        if places is None:
            return f"The scheduler of the Dask cluster at {self.address} does not answer {minutes}"
        paused = "not all there or paused" if self.needed else "all paused"
        state, hint = (paused, f". {MORE_MEMORY}") if places else ("all gone", "")
        return f"The workers of the Dask cluster at {self.address} are {state} {minutes}{hint}"


def is_able(worker: Mapping[str, Any]) -> bool:
    """Whether a worker takes tasks or has one: what is paused for lack of memory takes none."""
    return bool(worker["status"] == "running" or worker.get("metrics", {}).get("executing"))


@contextmanager
def connected(
    address: str, *, code: Sequence[ModuleType], packages: Sequence[str], on_gpus: bool
) -> Iterator[Cluster]:
    """Connect to a scheduler, and make its workers run this checkout's code.

    Args:
        address: of the scheduler, such as tcp://127.0.0.1:8786.
        code: packages and modules whose functions travel to the workers by value: those need no
            checkout, and can hold no older one.
        packages: whose versions must be the same here and there, beside those that connect us.
        on_gpus: run a task per GPU rather than per thread.
    Raises:
        StorageError: nobody answers, there are no workers, or they have other versions.
    """
    # nor its errors, with their tracebacks: what went wrong is raised, and told in one line
    for name in ("distributed", "distributed.client"):  # Dask gives the client a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", VersionMismatchWarning)  # what matters of it is refused
    client = _client(address)
    travels = [sys.modules[__name__], held_data, *code]
    for module in travels:
        cloudpickle.register_pickle_by_value(module)
    try:
        try:
            _check(client, address, packages)
            cluster = Cluster(client, address, on_gpus=on_gpus)
        except OSError as error:
            raise StorageError(
                f"Not all of the Dask cluster at {address} answers ({type(error).__name__}). Look "
                f"after its workers: the scheduler gives up one that hangs after some minutes."
            ) from error
        if not cluster.n_workers:
            raise StorageError(
                f"No worker at {address} offers a GPU. Start them with "
                f"dask worker {address} --nthreads 1 --resources {GPU}=1, one per GPU."
            )
        with cluster.watched():
            yield cluster
    finally:
        for module in travels:
            cloudpickle.unregister_pickle_by_value(module)
        client.close(timeout=TIMEOUT_S)


def once_per_worker(key: str, make: Callable[[], Any]) -> Any:
    """Return what `make` makes, made once in this worker's process; only the last key is kept.

    Called by a task on a worker.
    """
    worker = get_worker()
    lock = worker.__dict__.setdefault("_nyc_taxi_lock", Lock())
    with lock:
        known = worker.__dict__.get("_nyc_taxi", (None, None))
        if known[0] != key:
            known = worker.__dict__["_nyc_taxi"] = (key, make())
        return known[1]


def _client(address: str) -> Client:
    shown, place, is_encrypted = without_user(address), *_read_address(address)
    if is_encrypted:
        _check_certified(shown)
    try:
        socket.create_connection(place, timeout=TIMEOUT_S).close()  # Dask asks for 5 s in vain
        kind, spoken = asyncio.run(_ask_what(address))
        if kind != "Scheduler":
            raise StorageError(
                f"What answers at {shown!r} is a {kind} of Dask. Pass the address of the scheduler."
            )
        _compare(address, spoken, _spoken(get_versions()))
        return Client(address, timeout=TIMEOUT_S, set_as_default=False)
    # what is no scheduler may answer with anything, which Dask reads as sizes and such
    except (OSError, MemoryError, ValueError) as error:
        of_both = "with a certificate that both sides take, " if is_encrypted else ""
        raise StorageError(
            f"No Dask scheduler answers at {shown!r} ({type(error).__name__}). Start one with "
            f"dask scheduler, {of_both}or leave scheduler empty to work here."
        ) from error


def _check_certified(shown: str) -> None:
    """Make sure that Dask has a certificate here, by its configuration."""
    try:
        context, error = Security().get_connection_args("client")["ssl_context"], ""
    except OSError as raised:  # it is not there, or is none
        context, error = None, f" that can be read ({one_line(raised)})"
    if not context:
        raise StorageError(
            f"Scheduler {shown!r} speaks TLS, and Dask knows no certificate here{error}. Name it "
            f"in Dask's configuration, distributed.comm.tls."
        )


async def _ask_what(address: str) -> tuple[str, dict[str, str]]:
    """Ask what answers at an address, and which versions it has; Dask would wait for ever."""
    encryption = Security().get_connection_args("client")
    async with asyncio.timeout(TIMEOUT_S):
        line = await connect(address, timeout=TIMEOUT_S, **encryption)
        try:
            kind = (await send_recv(line, op="identity"))["type"]
            return kind, _spoken(await send_recv(line, op="versions"))
        finally:
            line.abort()


def _spoken(told: Mapping[str, Any]) -> dict[str, str]:
    """Pick what must be the same for any message to be read, of what Dask tells of versions."""
    versions = {name: str(told["packages"].get(name) or "missing") for name in SPOKEN}
    return versions | {"python": ".".join(versions["python"].split(".")[:2])}


def _begin(call: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """Ask a cluster something in a thread: Dask waits for ever for what hangs."""
    answer = Future[Any]()

    def ask() -> None:
        try:
            answer.set_result(call(*arguments, **options))
        except BaseException as raised:  # noqa: BLE001  who waits is told
            answer.set_exception(raised)

    Thread(target=ask, daemon=True).start()
    return answer


def _answered(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Ask a cluster something.

    Raises:
        TimeoutError: it has not answered within ANSWER_S.
    """
    return _begin(call, *arguments, **options).result(ANSWER_S)


def _is_reached(worker: str) -> bool:
    try:
        socket.create_connection(parse_host_port(parse_address(worker)[1]), REACH_S).close()
    except OSError:
        return False
    return True


def _read_address(address: str) -> tuple[tuple[str, int], bool]:
    """Read host and port, and whether the line is encrypted; Dask would raise much later."""
    try:
        scheme, where = parse_address(address)
        host, port = parse_host_port(where)
        host.encode("idna")
        if scheme in SCHEMES and not set(host) & set(" /@?#") and 0 < port < 65536 and host:
            return (host, port), SCHEMES[scheme]
    except ValueError:  # UnicodeError too
        pass
    raise StorageError(
        f"Scheduler {without_user(address)!r} is no address of a Dask scheduler. Pass the one that "
        f"it prints, such as tcp://127.0.0.1:8786, or leave scheduler empty."
    )


def _check(client: Client, address: str, packages: Sequence[str]) -> None:
    here = _spoken(get_versions())
    # before any code is sent there: that of another Python ends a worker
    for place, told in _answered(client.get_versions)["workers"].items():
        _compare(place, _spoken(told), here)
    ask, names = _ByValue(_versions), list(packages)
    workers: Mapping[str, dict[str, str]] = _answered(client.run, ask, names, on_error="ignore")
    if not workers:
        raise StorageError(
            f"The scheduler at {address} has no workers. Start some: dask worker {address}"
        )
    # the scheduler, too, unpacks what passes through it
    everywhere = {address: _answered(client.run_on_scheduler, ask, names), **workers}
    for place, there in everywhere.items():
        _compare(place, there, _versions(names))


def _compare(place: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse other versions than those here.

    Raises:
        StorageError: they are named.
    """
    wrong = (name for name in here if there[name] != here[name])
    if differ := [f"{name} {there[name]}, not {here[name]}" for name in wrong]:
        raise StorageError(f"{place} of the Dask cluster has {'; '.join(differ)}. {REQUIREMENTS}")


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions
