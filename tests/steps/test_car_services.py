"""The whole pipeline on car services, whose rides have no distance and mostly no pickup zone."""

import numpy as np

from storage.tracking import models, tags
from taxi.schema import TAXIS
from tests.steps.lab import Lab
from tests.steps.score.conftest import read_scored

OF_SERVICES = ("--source=simulated:200", "--taxi=fhv")
# thresholds for a model as small as this, on rides as varied as these
LOOSE = ("--max_rmse=99", "--min_r2=-1", "--max_coverage_gap=1", "--refit=train")
WIDE = ("--max_psi=99", "--max_unseen=1", "--max_rmse_rise=99")


def test_car_services_go_from_raw_months_to_a_champion_that_scores_a_later_one(lab: Lab) -> None:
    preprocess, _ = lab.run("preprocess", *OF_SERVICES)
    dropped = lab.table(preprocess, "months.csv")[0]
    assert int(dropped["longer than 60 min"]) + int(dropped["shorter than 1 min"]) > 0
    given = f"--preprocess_run_id={preprocess.info.run_id}"
    hpo, _ = lab.run("hpo", *OF_SERVICES, given, "--max_evals=1")
    assert "with no distance: xgboost" in hpo.data.tags["mlflow.note.content"]
    assert hpo.data.metrics["rmse_missing"] == hpo.data.metrics["rmse"]
    baseline = lab.step("baseline", preprocess, None)
    built_on = (f"--baseline_run_id={baseline}", f"--hpo_run_id={hpo.info.run_id}")
    registered, said = lab.register("services", *built_on, *LOOSE)
    assert said.startswith("xgboost registered as services version 1, alias champion: test rmse ")
    assert said.endswith(" min with no distance")
    version = lab.version("services", "1")
    assert (version.tags[tags.TAXI], version.tags[tags.JUDGED_BY]) == ("fhv", "missing")
    covered = lab.table(registered, "coverage.csv")
    assert {row["kind"] for row in covered} == {"all", "hour"}
    assert "These trips never have a distance" in version.description
    assert "with metered distance" not in version.description
    assert all(f"- {limit}" in version.description for limit in TAXIS["fhv"].limits)

    champion = "--model_uri=models:/services@champion"
    run, _ = lab.run("score", *OF_SERVICES, "--months=2021-04", champion, *WIDE)
    rows = read_scored(run, "2021-04", "fhv")
    assert rows["PUlocationID"].null_count > 100
    asked = rows.select(["pickup_datetime", "DOlocationID"]).to_pandas()
    model = models.load("models:/services/1")
    wanted = model.predict(asked.assign(PUlocationID=rows["PUlocationID"].to_pandas()))
    assert np.array_equal(rows["prediction"].to_numpy(), wanted)
    assert np.isfinite(model.predict(asked)).all()
    # app rides have all the columns that the model needs, but are another kind of rides
    _, said = lab.run("score", "--taxi=fhvhv", "--months=2021-04", champion, code=2)
    assert "is of fhv trips, not of fhvhv ones. Pass the taxi" in said[-1]
