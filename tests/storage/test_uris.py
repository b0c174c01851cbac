"""What is removed from a URI before it is shown."""

import subprocess
import sys

import pytest

from storage import UserError, uris
from storage.checkout import ROOT


def test_an_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPS", "https://host/trips?sig=token")
    monkeypatch.setenv("NOTHING", "")
    assert uris.expand_env_address("env:TRIPS", "source") == "https://host/trips?sig=token"
    assert uris.expand_env_address("https://host/trips", "source") == "https://host/trips"
    for name in ("NOTHING", "NO_SUCH"):
        with pytest.raises(UserError, match=f"^source=env:<NAME>, and there is no {name} in the"):
            uris.expand_env_address(f"env:{name}", "source")


OPEN = [  # URIs without secrets
    "https://host:8443/a/b.git",
    "HTTPS://Host/a",
    "https://host/a@b",
    "http://host:8080/a@b",
    "http://[::1]:5000/a@b",
    "s3://bucket/a@b/",
    "git@host:a/b.git",
    "file:///srv/a@b/months",
    "sqlite:////tmp/a#b/mlflow.db",
    "sqlite:///mlflow.db",
    "postgresql+psycopg2://host/runs",
    "simulated:300:7",
    "/srv/what?/a#b",
    "C:/months",
    "tlc",
    "",
]


@pytest.mark.parametrize("uri", OPEN)
def test_an_address_without_secrets_stays_as_it_is(uri: str) -> None:
    assert uris.without_credentials(uri) == uri
    assert uris.without_user(uri) == uri


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://ada:hush@host:8443/a/b.git", "https://host:8443/a/b.git"),
        ("HTTPS://ada:hush@Host/a", "HTTPS://Host/a"),
        ("http://ada:hu sh@host:80/a b@c", "http://host:80/a b@c"),
        ("https://token@host/a.git?key=hush#hush", "https://host/a.git"),
        ("ssh://git@host/a.git", "ssh://host/a.git"),
        ("https://ada:hu@sh@host/a@b", "https://host/a@b"),
        ("https://ada:hu#sh@hush?@host/a", "https://host/a"),
        ("mysql+pymysql://ada:hu/sh@host/runs", "mysql+pymysql://host/runs"),
        ("http://ada:hush@hush/hush#@127.0.0.1:5000/a", "http://127.0.0.1:5000/a"),
        ("http://host:80/a@b:80", "http://host:80/a@b:80"),
        ("https://:hush@host/a", "https://host/a"),
        ("https://ada:hush@[::1]:5000/a", "https://[::1]:5000/a"),
        ("https://host/a?X-Amz-Signature=hush&X-Amz-Credential=hush%2F1", "https://host/a"),
        ("https://host/a?user=ada@hush", "https://host/a"),
        ("https://host/a#hush", "https://host/a"),
        ("s3://key:hush@bucket/trips/", "s3://bucket/trips/"),
        ("postgresql:///runs?password=hush", "postgresql:///runs"),
        ("sqlite:///a#b.db?key=hush", "sqlite:///a#b.db"),
    ],
)
def test_user_password_query_and_fragment_of_an_address_are_cut(uri: str, public: str) -> None:
    assert uris.without_credentials(uri) == public
    assert uris.without_credentials(public) == public


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (
            "No answer at http://ada:hush@a:1/x, nor at HTTP://b.c:hush@b/y@z.",
            "No answer at http://a:1/x, nor at HTTP://b/y@z.",
        ),
        (
            "(http://a|http://ada:hush@b|mysql://ada:hu/sh@c)",
            "(http://a|http://b|mysql://c)",
        ),
        ("write to ada@example.org about http://host:1", None),
        ("url: /a?x=1 (host='a', port=1): http://a:1/b?q=1#c", None),
    ],
)
def test_a_text_keeps_all_but_the_users_of_its_addresses(text: str, public: str | None) -> None:
    assert uris.without_user(text) == (text if public is None else public)


def test_it_needs_no_package() -> None:
    code = "import sys, storage.uris; print({m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = eval(done.stdout) - set(sys.stdlib_module_names)
    assert loaded <= {"storage", "__main__"}


@pytest.mark.parametrize(
    ("uri", "holds"),
    [
        *((uri, False) for uri in OPEN),
        *(
            (uri, False)
            for uri in ("sftp://ada@host/m", "abfss://box@host/m", "https://host/a:b@c")
        ),
        *((uri, True) for uri in ("sftp://ada:hush@host/m", "s3://:hu/sh@b/m", "s3://a:b@c@d/m")),
        ("http://ada:hu sh@host", True),
    ],
)
def test_a_password_before_the_host_is_told_from_a_user(uri: str, holds: bool) -> None:
    assert uris.holds_password(uri) == holds
