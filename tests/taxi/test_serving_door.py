"""The answers of MLflow's own server, through its FastAPI application, to good and bad requests."""

import asyncio
import json
import platform
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mlflow
import pandas as pd
import pytest
import uvicorn
from click.testing import CliRunner
from fastapi import applications
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.models import cli
from mlflow.pyfunc import scoring_server

from storage.tracking import models, served_door
from storage.tracking.served_door import KINDS, RequestError
from storage.tracking.served_model import SERVER
from taxi.model import TripModel, trips_to_frame
from taxi.request_params import PARAM_DEFAULTS
from tests.conftest import simulated_trips
from tests.docs import readme_command
from tests.logged import log_model, own_experiment
from tests.taxi.test_model import END, MILES, START, TIME, make_model

JSON, CSV, PARQUET = KINDS
ROWS = trips_to_frame(simulated_trips("2021-02"), "green").iloc[:3].astype({TIME: str})
ROW: dict[str, Any] = ROWS.iloc[0].to_dict()
SECRET = "1999-12-31 23:59:59"  # a value in a row, which no answer may repeat


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.body["message"])


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def model() -> TripModel:
    return make_model(n_boosters=2)


@pytest.fixture(scope="module")
def uri(model: TripModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with own_experiment(tmp_path_factory, "door") as experiment:
        yield log_model(model, experiment, ROWS)


@pytest.fixture(scope="module")
def app(uri: str) -> Iterator[Any]:
    """Serve a model as `mlflow models serve` does: it loads while the application is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring_server, "invocations", scoring_server.invocations)
        patch.setattr(uvicorn.Server, "startup", uvicorn.Server.startup)
        for name in ("get_openapi", "get_swagger_ui_html", "get_redoc_html"):
            patch.setattr(applications, name, getattr(applications, name))
        patch.setenv(_MLFLOW_IS_IN_SERVING_ENVIRONMENT.name, "true")  # the server sets it, too
        patch.setitem(sys.modules, f"{SERVER}.app", ModuleType("app"))
        yield scoring_server.init(models.load(uri))


@pytest.fixture(scope="module")
def ask(app: Any) -> Ask:
    """Return a function that posts a body and returns the answer."""

    def post(body: str | bytes, kind: str | None = JSON) -> Answer:
        content = body.encode() if isinstance(body, str) else body
        headers = [(b"content-type", kind.encode())] if kind else []
        status, text = asyncio.run(send_to(app, "POST", "/invocations", headers, content))
        return Answer(status, json.loads(text))

    return post


async def send_to(
    app: Any, method: str, path: str, headers: Any = (), content: bytes = b""
) -> tuple[int, str]:
    """Send a request to the application as a web server would; return status and body."""
    scope = {"type": "http", "method": method, "path": path, "query_string": b""}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope | {"headers": list(headers)}, receive, send)
    text = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], text.decode()


def records(*rows: dict[str, Any], **more: Any) -> str:
    return json.dumps({"dataframe_records": rows, **more})


def in_parquet() -> bytes:
    return ROWS.to_parquet(index=False)


# --- what is answered


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (records(*ROWS.to_dict("records")), JSON),
        (json.dumps({"dataframe_split": ROWS.to_dict("split", index=False)}), JSON),
        (json.dumps({"inputs": ROWS.to_dict("list")}), JSON),
        (json.dumps({"inputs": ROWS.to_dict("records")}), JSON),
        (json.dumps({"instances": ROWS.to_dict("records")}), JSON),
        (ROWS.to_csv(index=False), CSV),
        ("\ufeff" + ROWS.to_csv(index=False), f"{CSV}; charset=utf-8"),
        (ROWS.astype({START: str, END: str}).to_csv(index=False, quoting=1), CSV),
        (in_parquet(), PARQUET),
    ],
    ids=["records", "split", "columns", "rows", "instances", "csv", "bom", "quoted", "parquet"],
)
def test_rows_are_answered_alike_however_they_are_written(
    body: str | bytes, kind: str, ask: Ask, model: TripModel
) -> None:
    wanted = model.answer(ROWS).tolist()
    assert ask(body, kind) == (200, {"predictions": wanted})


def test_plain_rows_are_answered_to_the_byte_as_others_without_mlflow_reading_them(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(body: str) -> tuple[int, str]:
        headers = [(b"content-type", JSON.encode())]
        return asyncio.run(send_to(app, "POST", "/invocations", headers, body.encode()))

    rows = ROWS.to_dict("records")
    read_by_mlflow = answer(records(*rows, params={}))
    monkeypatch.delattr(scoring_server, "_parse_json_data")
    assert answer(records(*rows)) == read_by_mlflow
    assert read_by_mlflow[0] == 200


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (records(ROW), "Application/JSON"),
        (records(ROW), f"{JSON};charset=utf8"),
        (records(ROW), f'{JSON}; charset="UTF-8"'),
        (records(ROW), f"{JSON}; charset=us-ascii"),
        (records(ROW, params={}), f"{JSON}; profile=x"),
        (ROWS.iloc[:1].to_csv(index=False), f"{CSV}; header=present; charset=UTF-8"),
    ],
)
def test_a_content_type_may_be_written_as_http_allows(
    body: str, kind: str, ask: Ask, model: TripModel
) -> None:
    wanted = model.answer(ROWS.iloc[:1]).tolist()
    assert ask(body, kind) == (200, {"predictions": wanted})


def test_a_csv_may_leave_out_a_distance_or_the_whole_column(ask: Ask, model: TripModel) -> None:
    unknown = ROWS.assign(**{MILES: None})
    wanted = {"predictions": model.answer(unknown).tolist()}
    assert ask(unknown.to_csv(index=False), CSV).body == wanted
    assert ask(unknown.drop(columns=MILES).to_csv(index=False), CSV).body == wanted


def test_one_row_may_be_sent_without_a_list(ask: Ask, model: TripModel) -> None:
    wanted = model.answer(ROWS.iloc[:1]).tolist()
    assert ask(json.dumps({"inputs": ROW})).body == {"predictions": wanted}


def test_a_distance_that_was_not_used_is_told_beside_the_predictions(
    ask: Ask, model: TripModel
) -> None:
    miles = [2.5, 9000, -1.0, None, "0"]
    rows = [ROW | {MILES: value} for value in miles]
    answer = ask(records(*rows))
    unknown = model.answer(ROWS.iloc[:1].assign(**{MILES: None}))[0]
    assert answer.body["predictions"][1:] == [unknown] * 4
    why = "is no distance above 0 and up to 60 miles; answered without one."
    assert answer.body["warnings"] == [
        f"Row {row}, column '{MILES}': {shown} {why}"
        for row, shown in ((1, "9000"), (2, "-1.0"), (4, "'0'"))
    ]
    many = ask(records(*[ROW | {MILES: 0}] * 15, params={"quantiles": []}))
    assert len(many.body["warnings"]) == 11
    assert many.body["warnings"][-1] == "5 more rows were answered without their distance."


@pytest.mark.parametrize(
    "body",
    [
        *({rows: []} for rows in ("dataframe_records", "inputs", "instances")),
        {"dataframe_split": {"columns": [TIME, START, END], "data": []}},
        *({"dataframe_records": [], "params": params} for params in ({}, {"live": True})),
    ],
    ids=str,
)
def test_no_rows_are_answered_no_predictions(body: Any, ask: Ask) -> None:
    assert ask(json.dumps(body)) == (200, {"predictions": []})


@pytest.mark.parametrize("odd", [266, "266"], ids=["plain", "text"])
def test_a_zone_that_there_is_not_is_told_beside_the_predictions(
    odd: Any, ask: Ask, model: TripModel
) -> None:
    rows = [ROW | {START: 1, END: 265}, ROW | {START: odd}, ROW | {START: 999, END: -1}]
    answer = ask(records(*rows))
    why = "is no zone of 1 to 265; answered as unknown."
    assert answer.body["warnings"] == [
        f"Row {row}, column '{name}': {shown} {why}"
        for row, name, shown in ((1, START, repr(odd)), (2, START, "999"), (2, END, "-1"))
    ]
    unknown = pd.DataFrame([rows[0], ROW | {START: 0}, ROW | {START: 0, END: 0}])
    assert answer.body["predictions"] == model.answer(unknown).tolist()


def test_of_many_zones_that_there_are_not_ten_are_told_and_the_rest_counted(ask: Ask) -> None:
    warnings = ask(records(*[ROW | {END: 0}] * 15)).body["warnings"]
    assert len(warnings) == 11
    assert warnings[-1] == f"5 more rows were answered as if '{END}' were unknown."


# --- what the server says of itself


def test_the_example_of_the_servers_description_is_answered(app: Any, ask: Ask) -> None:
    status, text = asyncio.run(send_to(app, "GET", "/openapi.json"))
    assert status == 200
    operation = json.loads(text)["paths"]["/invocations"]["post"]
    content = operation["requestBody"]["content"][JSON]
    answer = ask(json.dumps(content["example"]))
    assert answer.status == 200
    assert (
        answer.body.keys()
        <= operation["responses"]["200"]["content"][JSON]["schema"]["properties"].keys()
    )
    row = content["schema"]["properties"]["dataframe_records"]["items"]
    assert list(row["properties"]) == [TIME, START, END, MILES]
    assert row["required"] == [TIME, START, END]
    assert list(content["schema"]["properties"]["params"]["properties"]) == list(PARAM_DEFAULTS)


def test_the_docs_of_the_server_need_nothing_but_themselves(app: Any) -> None:
    status, page = asyncio.run(send_to(app, "GET", "/docs"))
    assert status == 200
    assert not re.findall(r"(?:src|href)=\"(?!openapi\.json)", page)
    assert all(name in page for name in (TIME, START, END, MILES, *PARAM_DEFAULTS, "curl -s "))
    # in a browser, a script replaces the written address by the server's own
    written = re.findall(r'replaceAll\("(\S+)", here\)', page)
    assert re.findall(r"curl -s (\S+) ", page) == written * 2


def test_the_dockerfile_has_what_trained_the_model_and_the_model_beside_it(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, *words = shlex.split(readme_command("mlflow models generate-dockerfile"))
    words[words.index("-m") + 1] = uri
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.commands, words)
    assert done.exit_code == 0, done.output
    dockerfile = (tmp_path / "image" / "Dockerfile").read_text()
    assert f"FROM python:{platform.python_version()}-" in dockerfile
    assert f"mlflow=={mlflow.__version__}" in dockerfile
    copied = str(tmp_path / "image" / "model_dir")
    assert models.digest(models.load(copied), copied) == models.digest(models.load(uri), uri)


# --- what is refused


def csv_of(line: str, header: str = f"{TIME},{START},{END}") -> str:
    return f"{header}\n{line}\n"


DEEP = "[" * 100_000 + "]" * 100_000
TWICE = {"columns": [TIME, START, START, END], "data": [[SECRET, 74, 75, 76]]}
REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", JSON, "Cannot read the body: Expecting value"),
    "cut": ('{"dataframe_records": [{"' + SECRET, JSON, "Cannot read the body: Unterminated"),
    "list": ("[1]", JSON, "Cannot read the body: "),
    "other object": ('{"rows": []}', JSON, "Cannot read the body: "),
    "no text": (b"\x80{}", JSON, "Cannot read the body: 'utf-8' codec"),
    "surrogate": (records(ROW | {TIME: "\ud800"}), JSON, "Cannot read the body: 'utf-8' codec"),
    "too deep": (f'{{"dataframe_records": {DEEP}}}', JSON, "Cannot read the body: it is nested"),
    "a name that is none": (
        '{"dataframe_split": {"columns": [{"a": 1}], "data": [[1]]}}',
        JSON,
        "Cannot read the body: ",
    ),
    "deep rows": (f'{{"inputs": {DEEP[99_400:100_600]}}}', JSON, "Cannot read the body: it is"),
    "deep value": (f'{{"dataframe_records": [{{"{START}": {DEEP[99_600:100_400]}}}]}}', JSON, "C"),
    "no table": ('{"inputs": {"a": [1], "b": [1, 2]}}', JSON, "The rows are no table: "),
    "chat": ('{"messages": [{"role": "user"}]}', JSON, f"Column '{TIME}' is missing. Columns"),
    "5,000 digits": (records(ROW | {START: 1}).replace("1,", "1" * 5000 + ",", 1), JSON, "Cannot "),
    "10**400": (records(ROW | {START: 10**400}), JSON, f"Row 0, column '{START}': got 1000"),
    "true": (records(ROW, ROW | {START: True}), JSON, f"Row 1, column '{START}': got True"),
    "long value": (records(ROW | {START: "x" * 10**6}), JSON, f"Row 0, column '{START}': got 'xx"),
    "control": (records(ROW | {START: "\x1b[31m"}), JSON, f"Row 0, column '{START}': got '\\x1b"),
    "missing": (records({TIME: SECRET, START: 74}), JSON, f"Column '{END}' is missing. Columns"),
    "long names": (records({"x" * 10**6: SECRET, "\x1b": 1}), JSON, f"Column '{TIME}' is missing"),
    "many names": (records(dict.fromkeys(map(str, range(10**4)), 1)), JSON, f"Column '{TIME}' is"),
    "twice": (json.dumps({"dataframe_split": TWICE}), JSON, f"Column '{START}' is there 2 times"),
    "twice in a row": (
        records(ROW).replace(f'"{END}"', f'"{START}": 74, "{END}"'),
        JSON,
        f"'{START}' is there twice in one object",
    ),
    "rows twice": (f'{records(ROW)[:-1]}, "dataframe_records": []}}', JSON, "'dataframe_records' "),
    "twice by case": (records(ROW | {"pulocationid": 1}), JSON, f"Column '{START}' is there 2"),
    "misspelt": (records({TIME: SECRET, START: 1, END: 2, "Trip_Distance ": 3}), JSON, "Column 'T"),
    "params": (records(ROW, params={"quantile": 0.5}), JSON, "Unknown param 'quantile'. Choose"),
    "no params": (records(ROW, params=[1]), JSON, "Params are [1]; send an object"),
    "beside": (
        records(ROW, quantiles=[0.5]),
        JSON,
        "'quantiles' beside 'dataframe_records' is not ",
    ),
    "no rows, beside": (records(live=True), JSON, "'live' beside 'dataframe_records' is not read."),
    "beside inputs": (json.dumps({"inputs": [ROW], "x" * 10**6: 1}), JSON, "'xxx"),
    "odd beside": (records(ROW, **{"\ud800\n": 1}), f"{JSON}; charset=utf-8", "'\\ud800\\n' be"),
    "no rows, bad params": (records(params={"live": 1}), JSON, "Param 'live': got 1; send true"),
    "long params": (records(ROW, params={"quantiles": ["x" * 10**6]}), JSON, "Param 'quantiles'"),
    "empty csv": ("", CSV, "Cannot read the body: No columns to parse"),
    "csv of bytes": (b"\xff\xfe\x01", CSV, "Cannot read the body: 'utf-8' codec"),
    "csv bad row": (csv_of(f"{SECRET},Harlem,75"), CSV, f"Row 0, column '{START}': got 'Harlem'"),
    "csv twice": (csv_of(f"{SECRET},1,2,3", f"{TIME},{START},{START},{END}"), CSV, "Column 'PU"),
    "csv long rows": (csv_of(f"{SECRET},74,75,"), CSV, "The csv's rows have more fields than its"),
    "csv long row": (csv_of(f"{SECRET},74,75\n{SECRET},74,75,1"), CSV, "Cannot read the body: "),
    "no parquet": (b"PAR1" + SECRET.encode(), PARQUET, "Cannot read the body: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_in_one_short_line_without_the_callers_rows(
    name: str, ask: Ask
) -> None:
    body, kind, words = REFUSED[name]
    status, answer = ask(body, kind)
    assert status == 400
    message = answer["message"]
    assert message.startswith(words)
    assert len(message) < 500
    assert message.isprintable()
    assert SECRET not in message
    assert answer.keys() == {"error_code", "message", "sqlstate", "error_class"}  # no stack


@pytest.mark.parametrize(
    ("kind", "words"), [(None, "No content type. "), ("a/b", "Content type 'a/b'")]
)
def test_a_body_of_no_known_type_is_refused_with_the_types_there_are(
    kind: str | None, words: str, ask: Ask
) -> None:
    answer = ask(records(ROW), kind)
    assert answer.status == 415
    assert answer.message.startswith(words)
    assert JSON in answer.message


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "no such one", '"\\x00"'])
def test_a_body_of_other_characters_than_utf_8_is_refused(charset: str, ask: Ask) -> None:
    answer = ask(records(ROW), f"{JSON}; charset={charset}")
    assert answer.status == 415
    assert answer.message.startswith("Charset '")
    assert answer.message.endswith("is not read. Send UTF-8.")


@pytest.mark.parametrize("more", [{}, {"params": {"live": False}}])
def test_a_fault_of_the_server_is_no_400_and_is_told_in_its_log_alone(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, more: Any
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("src/learner.cc:42: Check failed")

    for name, module in list(sys.modules.items()):
        if name.startswith("served_") and name.endswith(".model"):
            monkeypatch.setattr(module.TripModel, "answer", fail)
            monkeypatch.setattr(module.TripModel, "answer_plain", fail)
    answer = ask(records(ROW, **more))
    assert answer.status == 500
    assert answer.message == "The server failed with RuntimeError; its log says why."
    assert "learner.cc:42" in caplog.text


def test_a_request_error_keeps_its_message_though_the_server_puts_the_rows_before_it() -> None:
    error = RequestError("Row 0 is bad.")
    error.message = "Failed to predict data '...'. Error: Row 0 is bad."
    assert (error.message, error.get_http_status_code()) == ("Row 0 is bad.", 400)


def test_a_reason_is_one_short_line_without_control_characters() -> None:
    reason = ValueError(f"no\x1b[31m value\n\there\x00 {'x' * 500}")
    assert served_door.short_reason(reason) == f"no?[31m value here? {'x' * 500}"[:200]


def test_nothing_of_mlflow_is_changed_where_no_server_loads_the_model(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"{SERVER}.app", raising=False)
    before = scoring_server.invocations
    models.load(uri)
    assert scoring_server.invocations is before


def test_a_server_is_guarded_once(ask: Ask) -> None:
    served_door.guard(scoring_server)
    assert not hasattr(scoring_server.invocations.__wrapped__, "__wrapped__")


def test_workers_that_share_a_socket_send_the_second_half_of_an_answer_at_once(app: Any) -> None:
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.socket() as shared:
        shared.bind(("127.0.0.1", 0))

        async def start() -> None:
            await server.startup(sockets=[shared.dup()])
            await server.shutdown(sockets=[])

        asyncio.run(start())
        assert shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_workers_are_told_once(app: Any) -> None:
    served_door.set_tcp_nodelay(uvicorn.Server)
    assert not hasattr(uvicorn.Server.startup.__wrapped__, "__wrapped__")
