"""Run finished pipelines again, each in a fresh clone, environment and store, and compare.

python -m steps.pipelines.verify --run_id=<id>

Exit code 1 where anything differs: its run is FINISHED all the same.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from steps.common.parameters import VerifyParameters
from steps.common.step import step_run
from storage import UserError
from storage.data.months import next_month, parse_months
from storage.repro import verify
from storage.repro.comparison import comparison_table
from storage.repro.reuse import N_CHILDREN
from storage.repro.verify import Verdict
from storage.tracking import artifacts, pages, refusals, runs, store, tags
from storage.tracking.query import both, equals
from storage.uris import expand_env_address, refuse_password, without_credentials

EXIT_DIFFERS = 1  # exit code
DAYS, DAY_MS = 30, 86_400_000
MAX_TAG = 1_000
N_SHOWN = 40  # differences that a page shows
IDENTICAL, DIFFERENT, NOT_RUN = "identical", "differs", "not verified"
FRESH_ENVIRONMENT = {  # by env_manager
    "uv": "in a fresh clone, environment and store",
    "local": "in a fresh clone and store, and the environment of this run",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Choose the pipelines, run each again, write the verdict on it and on this run."""
    with step_run(VerifyParameters, __doc__, argv) as params:
        check_manager(params.env_manager)
        uri = read_store(params.tracking_uri)
        client = store.open_other(uri) if uri else MlflowClient()
        chosen = choose_runs(client, params)
        verdicts = []
        for number, run in enumerate(chosen, 1):
            print(f"{number} of {len(chosen)}: run {run.info.run_id} again", flush=True)
            verdicts.append(verify_one(client, run, params.env_manager, alone=len(chosen) == 1))
            print("\n".join(verdict_lines(verdicts[-1])))
            write_verdict_on_pipeline(client, verdicts[-1])
        place = f"they are in {without_credentials(uri)}" if uri else link_runs(chosen)
        write_verdicts_page(verdicts, f"{FRESH_ENVIRONMENT[params.env_manager]}; {place}")
    if not all(verdict.is_same for verdict in verdicts):
        sys.exit(EXIT_DIFFERS)


# --- which runs


def check_manager(name: str) -> None:
    """Check that an environment manager is one of verify.MANAGERS.

    Raises:
        UserError: it is none of MANAGERS.
    """
    if name not in verify.MANAGERS:
        raise UserError(f"Unknown env_manager {name!r}. Choose from {list(verify.MANAGERS)}.")


def read_store(text: str) -> str:
    """Read the URI of the store that the runs are in; empty = the active store.

    Raises:
        UserError: it holds a password, which MLflow has logged by now, or the environment
            variable that it names is not set.
    """
    instead = "as MLFLOW_TRACKING_PASSWORD, or the whole URI in a variable: tracking_uri=env:<NAME>"
    refuse_password(text, "The tracking_uri", instead)
    return expand_env_address(text, "tracking_uri")


def choose_runs(client: MlflowClient, params: VerifyParameters) -> list[Run]:
    """Look up the run that was named, or draw a sample of runs.

    Raises:
        UserError: the run cannot be repeated, there are none to draw from, or not exactly one of
            run_id and sample was given.
    """
    run_id = params.run_id.strip()
    if bool(run_id) == bool(params.sample):
        raise UserError("Pass either -P run_id=<id> or -P sample=<how many>.")
    if run_id:
        return [verify.pipeline(client, run_id)]
    begin, end = period(params.month, time.time_ns() // 1_000_000)
    found = finished_pipelines(client, begin, end)
    fit = [run for run in found if not verify.why_not_repeatable(run)]
    when = params.month or f"the last {DAYS} days"
    if not fit:
        raise UserError(
            f"Of {when} there are {len(found)} finished pipelines in this store, and none can be "
            "run again from nothing. Pass -P month=YYYY-MM, or -P tracking_uri=<another store>."
        )
    chosen = draw_sample(fit, params.sample, params.seed)
    print(
        f"verify: {len(chosen)} of {len(fit)} pipelines of {when} (seed {params.seed}); "
        f"{len(found) - len(fit)} more cannot be run again from nothing"
    )
    return chosen


def period(month: str, now_ms: int) -> tuple[int, int]:
    """Return the begin and end of a month, in ms since 1970; without a month, of the last 30 days.

    Raises:
        UserError: it is not a month.
    """
    if not month:
        return now_ms - DAYS * DAY_MS, now_ms + DAY_MS
    months = parse_months(month)
    if len(months) != 1:
        raise UserError(f"month {month!r} must be one month, written YYYY-MM.")
    begin, end = (datetime.strptime(name, "%Y-%m") for name in (month, next_month(month)))
    ends = [int(moment.replace(tzinfo=UTC).timestamp() * 1000) for moment in (begin, end)]
    return ends[0], ends[1]


def finished_pipelines(client: MlflowClient, begin_ms: int, end_ms: int) -> list[Run]:
    """List the finished runs of main that began in a period, in any experiment."""
    experiments = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
    condition = both(equals(f"tags.{tags.STEP}", "main"), equals("attributes.status", "FINISHED"))
    when = f"attributes.start_time >= {begin_ms} and attributes.start_time < {end_ms}"
    found: list[Run] = client.search_runs(
        [one.experiment_id for one in experiments],
        f"{condition} and {when}",
        max_results=N_CHILDREN,
    )
    return found


def draw_sample(found: Sequence[Run], n: int, seed: int) -> list[Run]:
    """Draw n runs at random: the same for the same seed, in whatever order they are given."""
    ordered = sorted(found, key=lambda run: str(run.info.run_id))
    return random.Random(seed).sample(ordered, min(n, len(ordered)))


# --- the verdict


def verify_one(client: MlflowClient, run: Run, env_manager: str, *, alone: bool) -> Verdict:
    """Run a pipeline again and compare; one of several that cannot run does not stop the rest.

    Raises:
        UserError: it is the only one, and cannot be run again.
    """
    try:
        return verify.verify(client, run, env_manager)
    except UserError as error:
        if alone:
            raise
        return Verdict(run, [], str(error))


def short_verdict(verdict: Verdict) -> str:
    """Return the verdict in a word or two."""
    if verdict.problem:
        return NOT_RUN
    return IDENTICAL if verdict.is_same else DIFFERENT


def verdict_lines(verdict: Verdict) -> list[str]:
    """Format the comparison as lines of a table, with the verdict last."""
    table = list(comparison_table(verdict.rows))[:-1] if verdict.rows else []
    return [*table, f"{verdict.run.info.run_id}: {verdict.line}"]


def table_rows(verdict: Verdict) -> list[dict[str, object]]:
    """Return the comparison as rows of verify.csv."""
    run_id = verdict.run.info.run_id
    if verdict.problem:
        return [{"pipeline": run_id, "verdict": NOT_RUN, "problem": verdict.problem}]
    return [
        {"pipeline": run_id, "verdict": DIFFERENT if row.differences else IDENTICAL, **row.cells()}
        for row in verdict.rows
    ]


def write_verdict_on_pipeline(client: MlflowClient, verdict: Verdict) -> None:
    """Write the verdict on the run that was verified, if its store permits this user to."""
    run_id, today = verdict.run.info.run_id, f"{datetime.now(UTC):%Y-%m-%d}"
    run_tags = {
        tags.VERIFIED: f"{short_verdict(verdict)}: {verdict.problem or verdict.line}"[:MAX_TAG],
        tags.VERIFIED_BY: f"{runs.active_info().run_id}, {today}",
    }
    try:
        for name, text in run_tags.items():
            client.set_tag(run_id, name, text)
        table = artifacts.write_csv(table_rows(verdict))
        client.log_text(run_id, table, tags.VERIFY_TABLE)
    except (MlflowException, OSError) as error:
        reason = refusals.explain_refusal(error)
        if not reason:
            raise
        print(
            f"verify: the verdict is only on this run: run {run_id} could not be tagged. {reason}"
        )


def link_runs(pipelines: Sequence[Run]) -> str:
    """Link pipelines that are in the active store."""
    return ", ".join(
        f"[{run.info.run_name}]({pages.run_link(run.info.experiment_id, run.info.run_id)})"
        for run in pipelines
    )


def write_verdicts_page(verdicts: Sequence[Verdict], where: str) -> None:
    """Write the verdicts on the active run, and its page.

    Args:
        verdicts: one for each pipeline.
        where: words that say where they ran again, and where the originals are.
    """
    counts = Counter(short_verdict(verdict) for verdict in verdicts)
    worst = next(word for word in (DIFFERENT, NOT_RUN, IDENTICAL) if counts[word])
    text = f"{counts[IDENTICAL]} of {len(verdicts)} pipelines came out identical"
    others = [f"{counts[word]} {word}" for word in (DIFFERENT, NOT_RUN) if counts[word]]
    mlflow.set_tags(
        {
            tags.VERIFIED: worst,
            tags.VERIFIED_RUNS: ",".join(one.run.info.run_id for one in verdicts),
        }
    )
    rows = [row for verdict in verdicts for row in table_rows(verdict)]
    artifacts.log_table(rows, tags.VERIFY_TABLE)
    lines = [line for verdict in verdicts for line in verdict_lines(verdict)]
    more = f"\n{len(lines) - N_SHOWN} lines more" if len(lines) > N_SHOWN else ""
    runs.write_page(
        f"**{', '.join([text, *others])}** {where}\n\n"
        "```\n" + "\n".join(lines[-N_SHOWN:]) + more + "\n```",
        f"{counts[IDENTICAL]} of {len(verdicts)} identical",
    )


if __name__ == "__main__":
    main()
