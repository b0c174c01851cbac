"""A model server's requests and answers as an OpenAPI description, and as a page to read."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from .request_params import MAX_QUANTILES
from .schema import MAX_MILES, N_ZONES, ZONES, input_names, input_requirements, select_taxi

URL = "http://127.0.0.1:5001/invocations"
JSON = "application/json"

# role -> JSON Schema of what a caller sends
FIELD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "pickup_at": {
        "type": "string",
        "format": "date-time",
        "description": "time of the pickup, New York local time; with a UTC offset it is converted",
        "example": "2021-03-05 17:45:00",
    },
    "pickup_zone": {
        "type": ["integer", "string"],
        "description": f"TLC zone of the pickup, 1 to {N_ZONES - 1}; any other is unknown",
        "example": 74,
    },
    "dropoff_zone": {
        "type": ["integer", "string"],
        "description": f"TLC zone of the drop-off, 1 to {N_ZONES - 1}; any other is unknown",
        "example": 75,
    },
    "distance_miles": {
        "type": ["number", "string", "null"],
        "description": f"planned miles, above 0 and up to {MAX_MILES:g}; null if unknown",
        "example": 1.3,
    },
}
PARAMS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "what to answer beside the minutes; each row is then an object",
    "properties": {
        "quantiles": {
            "type": "array",
            "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "maxItems": MAX_QUANTILES,
            "description": "quantiles of the duration in minutes; 0.1 comes as p10",
        },
        "longer_than": {
            "type": "number",
            "minimum": 0,
            "description": "minutes; the probability that the trip takes longer comes with it",
        },
        "live": {
            "type": "boolean",
            "description": "scale the minutes to how long trips take at present",
        },
    },
    "additionalProperties": False,
}
ANSWER_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["predictions"],
    "properties": {
        "predictions": {
            "type": "array",
            "items": {"type": ["number", "object"]},
            "description": "minutes of each row, or an object if params ask for more",
        },
        "warnings": {
            "type": "array",
            "items": {"type": "string"},
            "description": "zones and distances that were not used; absent if all were",
        },
    },
}
REFUSAL_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "error_code": {"type": "string"},
        "message": {"type": "string", "description": "what is wrong, in one line"},
    },
}


def describe_request(taxi: str) -> dict[str, Any]:
    """Describe a request and its answers: an operation object of OpenAPI 3.1, with an example."""
    row = {name: describe_field(role, taxi) for role, name in input_names(taxi).items()}
    required = [name for role, name in input_names(taxi).items() if input_requirements(taxi)[role]]
    rows = {"type": "object", "properties": row, "required": required}
    body = {
        "type": "object",
        "required": ["dataframe_records"],
        "properties": {
            "dataframe_records": {"type": "array", "items": rows},
            "params": PARAMS_SCHEMA,
        },
    }
    answers = {
        "200": ("the minutes", ANSWER_SCHEMA),
        "400": ("a row, a column or a param", REFUSAL_SCHEMA),
    }
    return {
        "summary": f"Minutes that {select_taxi(taxi).plural} take",
        "description": "Also takes text/csv with a header, and application/vnd.apache.parquet.",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": body, "example": example(taxi)}},
        },
        "responses": {
            status: {"description": meaning, "content": {JSON: {"schema": schema}}}
            for status, (meaning, schema) in answers.items()
        },
    }


def describe_field(role: str, taxi: str) -> dict[str, Any]:
    """Describe the field that a caller sends for a role of this taxi's trips."""
    schema = dict(FIELD_SCHEMAS[role])
    if role in ZONES and not input_requirements(taxi)[role]:
        schema["type"] = [*schema["type"], "null"]
        schema["description"] += "; null if unknown"
    return schema


def example(taxi: str) -> dict[str, Any]:
    """Return a request for one trip."""
    row = {name: FIELD_SCHEMAS[role]["example"] for role, name in input_names(taxi).items()}
    return {"dataframe_records": [row]}


def describe_as_html(taxi: str) -> str:
    """Write the same description as a self-contained HTML page."""
    fields = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_types(describe_field(role, taxi))}</td>"
        f"<td>{'yes' if input_requirements(taxi)[role] else 'no'}</td>"
        f"<td>{escape(describe_field(role, taxi)['description'])}</td></tr>"
        for role, name in input_names(taxi).items()
    )
    params = "".join(
        f"<tr><td><code>{name}</code></td><td>{_types(schema)}</td>"
        f"<td>{escape(schema['description'])}</td></tr>"
        for name, schema in PARAMS_SCHEMA["properties"].items()
    )
    with_params = example(taxi) | {"params": {"quantiles": [0.1, 0.9]}}
    curls = "\n\n".join(_curl(body) for body in (example(taxi), with_params))
    return PAGE.format(
        trips=select_taxi(taxi).plural, fields=fields, params=params, curls=escape(curls), url=URL
    )


def _types(schema: Mapping[str, Any]) -> str:
    kinds = schema["type"]
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


def _curl(body: Mapping[str, Any]) -> str:
    return f"curl -s {URL} -H 'Content-Type: {JSON}' -d '{json.dumps(body)}'"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Minutes of {trips}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} th, td {{ text-align: left; padding: .2rem 1rem .2rem 0 }}
td {{ overflow-wrap: anywhere }} td:first-child {{ overflow-wrap: normal }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border: 1px solid }}
</style>
<main>
<h1>Minutes of {trips}</h1>
<p><code>POST /invocations</code> answers the minutes of each trip; <code>GET /ping</code> says
whether the model is loaded. The same for machines: <a href="openapi.json">openapi.json</a>.</p>
<h2>A trip</h2>
<table><tr><th>column</th><th>type</th><th>needed</th><th>what it is</th></tr>{fields}</table>
<h2>Params</h2>
<table><tr><th>param</th><th>type</th><th>what it is</th></tr>{params}</table>
<h2>Examples</h2>
<pre>{curls}</pre>
<p>A request that cannot be answered gets status 400 and one line in <code>message</code>. Zones
and distances that were not used are listed in <code>warnings</code>, beside
<code>predictions</code>.</p>
</main>
<script>
const examples = document.querySelector("pre"), here = new URL("invocations", location).href;
examples.textContent = examples.textContent.replaceAll("{url}", here);
</script>
</html>
"""
