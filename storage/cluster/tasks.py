"""Serialization of tasks: functions are pickled by value, classes in their results by name.

Workers need no checkout, and cannot use an older one.
"""

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from threading import Lock
from types import ModuleType
from typing import Any

import cloudpickle
from distributed import get_worker

from storage.environment import OWN_PACKAGES

# must agree before any message can be read: code of another Python may crash a worker
PROTOCOL_PACKAGES = ("python", "distributed", "cloudpickle")


@contextmanager
def pickled_by_value(code: Sequence[ModuleType]) -> Iterator[None]:
    """Pickle functions of these packages and modules, and of their submodules, by value."""
    for module in code:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in code:
            cloudpickle.unregister_pickle_by_value(module)


def pack(data: Any) -> bytes:
    """Pickle plain data, or arguments."""
    return cloudpickle.dumps(data)


def unpack_data(packed: bytes) -> Any:
    """Unpickle what `pack` returned."""
    return cloudpickle.loads(packed)


class ByValue:
    """A function that is pickled with its code: distributed would send only its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.packed = cloudpickle.dumps(function)

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return cloudpickle.loads(self.packed)(*arguments)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return cloudpickle.loads, (self.packed,)


class _NamePickler(pickle.Pickler):
    """Pickles what a task returns, with this project's classes by name: this checkout's are used.

    Pickled by value, as Dask would, they would put the worker's functions into the classes of the
    same names here.
    """

    def persistent_id(self, obj: Any) -> tuple[str, str] | None:
        is_own = isinstance(obj, type) and _is_own(obj)
        return (obj.__module__, obj.__qualname__) if is_own else None


class _NameUnpickler(pickle.Unpickler):
    def persistent_load(self, name: tuple[str, str]) -> Any:
        module, path = name
        return attrgetter(path)(import_module(module))


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in OWN_PACKAGES


def run_task(function: Callable[..., Any], first: Any, others: bytes) -> bytes:
    """Call a function on a worker; return its pickled result, or error of this project."""
    try:
        returned, error = function(first, *cloudpickle.loads(others)), None
    except Exception as raised:
        if not _is_own(type(raised)):
            raise  # Dask sends it with its traceback
        returned, error = None, raised
    packed = io.BytesIO()
    _NamePickler(packed, pickle.HIGHEST_PROTOCOL).dump((returned, error))
    return packed.getvalue()


def unpack(packed: bytes) -> Any:
    """Return what a function returned on a worker, or raise what it raised."""
    returned, error = _NameUnpickler(io.BytesIO(packed)).load()
    if error:
        raise error
    return returned


def unpack_one(packed: Sequence[bytes]) -> Any:
    """Unpack the only item of a list."""
    return unpack(packed[0])


def once_per_worker(key: str, make: Callable[[], Any]) -> Any:
    """Return the result of `make`, called once per worker process; only the last key is kept.

    Called by a task on a worker.
    """
    worker = get_worker()
    lock = worker.__dict__.setdefault("_nyc_taxi_lock", Lock())
    with lock:
        cached = worker.__dict__.get("_nyc_taxi", (None, None))
        if cached[0] != key:
            cached = worker.__dict__["_nyc_taxi"] = (key, make())
        return cached[1]
