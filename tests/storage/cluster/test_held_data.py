"""Data that a process holds for workers, fetched over a real connection."""

import http.client
from urllib.parse import urlsplit

import pytest

from storage.cluster import held_data


def test_data_comes_whole_as_often_as_it_is_asked_for() -> None:
    data = bytes(range(256)) * 20_000
    with held_data.serve(data, ["no.such.host.invalid", "127.0.0.1"]) as held:
        assert [held_data.fetch(held) for _ in range(2)] == [data, data]
    assert not held_data.is_reachable(held)  # nothing is left of it


def test_other_bytes_are_never_taken() -> None:
    cut = pytest.raises(OSError, match="cut or changed")
    with cut, held_data.serve(b"1", ["127.0.0.1"]) as held:
        held_data.fetch(held._replace(sha256="0" * 64))


def test_who_does_not_know_the_name_gets_nothing_and_a_line_that_breaks_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with held_data.serve(bytes(32_000_000), ["127.0.0.1"]) as held:
        address = urlsplit(held.addresses[0])
        for path in ("/", "/data", f"{address.path}/x", "/%00"):
            line = http.client.HTTPConnection(address.netloc, timeout=10)
            line.request("GET", path)
            answer = line.getresponse()
            assert (answer.status, answer.read()) == (404, b"")
        line = http.client.HTTPConnection(address.netloc, timeout=10)
        line.request("GET", address.path)
        line.sock.close()  # as when a worker is killed
        assert held_data.is_reachable(held)
    assert capsys.readouterr() == ("", "")
