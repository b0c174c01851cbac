"""What the chosen model is refitted to before it is tested, and what of it stays the same."""

import json
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import mlflow
import numpy as np
import pytest
import xgboost.dask
from distributed import Event
from mlflow.entities import Run
from scipy.sparse import csr_matrix

from steps.common.candidates import read_profiles
from steps.common.inputs import load_trips
from steps.common.results import read_preprocess, read_registration
from steps.common.validate import check_refit_workers
from steps.register import workers
from steps.register.workers import cluster_training, split_rows
from storage import StorageError, UserError
from storage.tracking import artifacts, models, runs
from taxi.batches import BatchedMatrix
from taxi.drift import DriftReference, count_predictions
from taxi.fitting import BoosterSet
from taxi.model import TripModel, trips_to_frame
from taxi.profile import join_profiles
from taxi.recipes import MORE_ROUNDS, Member, Recipe
from taxi.rows import TrainingData
from tests.clusters import Dask, dask_cluster
from tests.steps.lab import GOOD, Lab, Pipelines

COMMIT = "mlflow.source.git.commit"
ANY_SCORE = ("--max_rmse=100", "--min_r2=-1", "--max_coverage_gap=1")


@pytest.fixture
def searched(lab: Lab, pipelines: Pipelines) -> list[str]:
    """Return the parameters that name a pipeline whose candidate comes from a small search."""
    pipelines.of(lab, None)
    given = pipelines.preprocess
    if "searched" not in pipelines.made:
        small = (f"--preprocess_run_id={given.info.run_id}", "--features=compact", "--max_evals=2")
        pipelines.made["searched"] = lab.run("hpo", *small)[0].info.run_id
    baseline = pipelines.made[("baseline", None)]
    hpo = pipelines.made["searched"]
    return [f"--baseline_run_id={baseline}", f"--hpo_run_id={hpo}", *ANY_SCORE]


def candidate_of(given: list[str]) -> Run:
    """Return the candidate's run of the search among parameters."""
    hpo = next(word.partition("=")[2] for word in given if word.startswith("--hpo_run_id="))
    (candidate,) = (run for run in runs.children(hpo) if "model_uri" in run.data.tags)
    return candidate


def model_at(uri: str) -> tuple[TripModel, bytes]:
    """Load a model and the profile that it stores."""
    loaded = mlflow.pyfunc.load_model(uri)
    return models.unwrapped(loaded), models.profile(loaded)


def recipe_of(run: Run) -> Recipe:
    return Recipe.restore(json.loads(artifacts.read_text(run.info.run_id, "recipe.json")))


def rounds_of(model: TripModel) -> list[int]:
    return [
        booster.num_boosted_rounds()
        for booster in [*model.estimators, *model.boosters_without_distance]
    ]


def test_refit_train_registers_the_candidates_own_model(lab: Lab, searched: list[str]) -> None:
    run, _ = lab.register("as chosen", *searched, "--refit=train")
    assert runs.children(run.info.run_id) == []
    chosen = candidate_of(searched).data.tags["model_uri"]
    assert lab.version("as chosen", "1").tags["model_uri"] == chosen


def test_refit_train_valid_registers_a_model_of_more_trips_and_rounds_with_the_candidates_spread(
    lab: Lab, searched: list[str], pipelines: Pipelines
) -> None:
    run, _ = lab.register("refitted", *searched)
    (refit,), candidate = runs.children(run.info.run_id), candidate_of(searched)
    assert refit.info.run_name == "refit"
    for one in (run, refit, candidate):
        worst = lab.table(one, "worst_trips.csv")
        assert len(worst) == 100
        errors = [abs(float(trip["error"])) for trip in worst]
        assert errors == sorted(errors, reverse=True)
        assert (
            f"{one.info.run_id}/artifacts/worst_trips.csv" in one.data.tags["mlflow.note.content"]
        )
    before, after = recipe_of(candidate), recipe_of(refit)
    parts = zip(
        [*before.members, *before.members_without_distance],
        [*after.members, *after.members_without_distance],
        strict=True,
    )
    for known, again in parts:
        assert sum(again.rates()) == pytest.approx(known.rounds * MORE_ROUNDS * 0.2, rel=0.02)
        assert again.rates()[:: again.rounds - 1] == [0.05, 0.35]
        assert again.parameters == {**known.parameters, "learning_rate": 0.05}
    uri = lab.version("refitted", "1").tags["model_uri"]
    assert uri != candidate.data.tags["model_uri"]
    logged = mlflow.get_logged_model(uri.removeprefix("models:/"))
    assert [logged.params[name] for name in ("learning_rate", "last_learning_rate")] == [
        "0.05",
        "0.35",
    ]
    (chosen, chosen_profile), (model, profile) = map(
        model_at, (candidate.data.tags["model_uri"], uri)
    )
    assert rounds_of(model) == [
        member.rounds for member in [*after.members, *after.members_without_distance]
    ]
    assert rounds_of(chosen) == [
        member.rounds for member in [*before.members, *before.members_without_distance]
    ]
    assert model.spread.state() == chosen.spread.state()
    reference, before_refit = (
        DriftReference.restore(json.loads(each)) for each in (profile, chosen_profile)
    )
    preprocess = read_preprocess(pipelines.preprocess)
    fitted = join_profiles(read_profiles(preprocess.run_id).values())
    assert reference.train.state() == fitted.state()
    assert reference.train.n_trips == len(load_trips(preprocess, "train", "valid"))
    said = count_predictions(model.predict(load_trips(preprocess, "valid")))
    assert np.array_equal(reference.predictions, said)
    assert not np.array_equal(reference.predictions, before_refit.predictions)
    assert reference[2:] == before_refit[2:]  # unseen shares and RMSE stay as measured on valid
    assert lab.version("refitted", "1").tags["rmse_valid"] == (
        f"{candidate.data.metrics['rmse']:.6f}"
    )


def test_a_refitted_version_tells_the_commit_that_refitted_it_not_that_of_an_earlier_search(
    lab: Lab, searched: list[str]
) -> None:
    found = candidate_of(searched)
    lab.client.set_tag(found.info.run_id, COMMIT, "c0ffee")
    try:
        refitted, _ = lab.register("by this commit", *searched)
        lab.register("by that commit", *searched, "--refit=train")
    finally:
        lab.client.set_tag(found.info.run_id, COMMIT, found.data.tags[COMMIT])
    assert lab.version("by this commit", "1").tags["git_commit"] == refitted.data.tags[COMMIT]
    assert lab.version("by that commit", "1").tags["git_commit"] == "c0ffee"


def test_the_same_candidate_refitted_again_is_the_same_version(
    lab: Lab, searched: list[str]
) -> None:
    lab.register("twice", *searched)
    _, said = lab.register("twice", *searched)
    assert said.startswith("xgboost was already twice version 1, alias champion")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as dask:
        yield dask


def files_of(run: Run) -> dict[str, bytes]:
    model, _ = model_at(read_registration(run).model_uri)
    return dict(model.to_files())


def test_a_cluster_refits_the_very_boosters_of_this_machine(
    lab: Lab, searched: list[str], cluster: Dask
) -> None:
    given = [*searched, "--test_only=true"]
    here, _ = lab.run("register", *given)
    there, _ = lab.run("register", *given, f"--scheduler={cluster.address}")
    trained = cluster.client.run(lambda dask_worker: "_nyc_taxi" in vars(dask_worker))
    assert any(trained.values())
    assert files_of(here) == files_of(there)
    assert sum(name.endswith(".ubj") for name in files_of(here)) > 1


def test_workers_that_share_the_rows_of_a_booster_train_the_same_one_each_time(
    lab: Lab, searched: list[str], cluster: Dask
) -> None:
    given = [*searched, "--test_only=true", f"--scheduler={cluster.address}"]
    (one, _), (two, _), (again, said) = (
        lab.run("register", *given, f"--refit_workers={n}") for n in (1, 2, 2)
    )
    assert files_of(two) == files_of(again)
    assert files_of(one).keys() == files_of(two).keys()
    assert files_of(one) != files_of(two)  # sums over two parts differ from sums over one
    assert any(line.endswith(" trips of train and valid, 2 workers together") for line in said)
    here, _ = lab.run("register", *searched, "--test_only=true")
    assert files_of(one) == files_of(here)


def test_a_refit_over_more_workers_than_there_are_is_refused(
    lab: Lab, searched: list[str], cluster: Dask
) -> None:
    scheduler = f"--scheduler={cluster.address}"
    _, said = lab.run("register", *searched, scheduler, "--refit_workers=3", code=2)
    assert "refit_workers=3, and tcp://127.0.0.1:" in said[-1]
    assert "has 2. Start more" in said[-1]
    with pytest.raises(UserError, match=r"has 2\. Start more"):
        check_refit_workers(3, cluster.address)  # main checks this before any step starts
    check_refit_workers(2, cluster.address)


def test_what_xgboost_says_on_the_workers_is_said_in_a_line(cluster: Dask) -> None:
    sets = [BoosterSet([Member({"objective": "no:such"}, 1)], 256, lambda: some_rows(np.ones))]
    refused = pytest.raises(StorageError, match=r"Workers did not end a refit \(.*; what is")
    with refused, cluster_training(cluster.address, on_gpu=False, n_workers=2) as train:
        train(sets)


def test_workers_that_are_at_the_tasks_of_others_get_their_own_share_all_the_same(
    cluster: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> bytes:
        sets = [BoosterSet([Member({"seed": 1}, 3)], 256, lambda: some_rows(np.ones))]
        with cluster_training(cluster.address, on_gpu=False, n_workers=2) as train:
            return bytes(train(sets)[0][0].save_raw())

    async def bring_home(matrix: Any, *given: Any) -> None:
        alone.append(len(matrix.worker_map) == 1)
        Thread(target=free.set).start()  # in this thread it would wait for itself
        await really(matrix, *given)

    here, alone, really = trained(), [], workers._move_to_workers
    worker = next(iter(cluster.client.scheduler_info()["workers"]))
    free = Event("free", client=cluster.client)
    waits = lambda: Event("free").wait()  # noqa: E731  travels by value
    task = cluster.client.submit(waits, workers=[worker], pure=False)
    monkeypatch.setattr(workers, "_move_to_workers", bring_home)
    assert trained() == here
    assert alone == [True]
    assert task.result(timeout=60)


GONE = "tcp://127.0.0.1:1"


@pytest.mark.parametrize("silent", [False, True], ids=["a worker", "the scheduler"])
def test_who_is_lost_between_two_boosters_is_said_in_a_line(
    cluster: Dask, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    async def look(workers: list[str], client: Any) -> None:
        if silent:
            raise OSError(f"Timed out trying to connect to {GONE}")
        await really([*workers, GONE], client)

    really = xgboost.dask._check_workers_are_alive
    monkeypatch.setattr(xgboost.dask, "_check_workers_are_alive", look)
    sets = [BoosterSet([Member({}, 1)], 256, lambda: some_rows(np.ones))]
    refused = pytest.raises(StorageError, match=rf"Workers .* \(.*{GONE}.*\); what is finished")
    with refused, cluster_training(cluster.address, on_gpu=False, n_workers=2) as train:
        train(sets)


def test_one_hot_rows_are_not_parted_among_workers(cluster: Dask) -> None:
    sets = [BoosterSet([], 256, lambda: some_rows(lambda shape: csr_matrix(np.ones(shape))))]
    refused = pytest.raises(UserError, match="features=compact or full")
    with refused, cluster_training(cluster.address, on_gpu=False, n_workers=2) as train:
        train(sets)


def some_rows(make: Callable[[tuple[int, int]], Any]) -> TrainingData:
    return TrainingData(make((4, 2)), np.ones(4), None)


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 6], [2, 2, 3]])
def test_rows_are_cut_into_parts_wherever_their_batches_end(sizes: list[int]) -> None:
    class Batches(BatchedMatrix):
        shape = (7, 2)

        def batches(self) -> Iterator[np.ndarray]:
            yield from np.split(matrix, [3, 5])

    matrix = np.arange(14, dtype=np.float32).reshape(7, 2)
    for each in (matrix, Batches()):
        parts = list(split_rows(each, sizes))
        assert [len(part) for part in parts] == sizes
        assert np.array_equal(np.concatenate(parts), matrix)


def test_a_baseline_is_refitted_to_valid_too(lab: Lab, pipelines: Pipelines) -> None:
    hpo = next(word for word in pipelines.of(lab, None) if word.startswith("--hpo_run_id="))
    preprocess: Any = pipelines.preprocess
    baseline, _ = lab.run(
        "baseline", f"--preprocess_run_id={preprocess.info.run_id}", "--models=mean"
    )
    given = [f"--baseline_run_id={baseline.info.run_id}", hpo, *ANY_SCORE]
    lab.register("mean", *given)
    trips = [load_trips(read_preprocess(preprocess), split) for split in ("train", "valid")]
    both = load_trips(read_preprocess(preprocess), "train", "valid")
    for name, values in vars(both).items():
        parts = [getattr(part, name) for part in trips]
        assert np.array_equal(values, np.concatenate(parts), equal_nan=name == "distance_miles")
    minutes = both.trip_minutes
    served = mlflow.pyfunc.load_model("models:/mean/1")
    answer = served.predict(trips_to_frame(trips[0].take(slice(1)), "green"))
    assert float(np.ravel(answer)[0]) == pytest.approx(minutes.mean())
    assert minutes.mean() != pytest.approx(trips[0].trip_minutes.mean())


def test_a_candidate_without_a_recipe_is_refused_in_one_line(
    lab: Lab, pipelines: Pipelines
) -> None:
    _, said = lab.register(
        "without recipe", *pipelines.of(lab, GOOD), "--refit=train_valid", code=2
    )
    assert "has no recipe.json, so its model cannot be fitted to valid too" in said
    assert "Run its step again, or pass -P refit=train." in said
    assert "without recipe" not in lab.store.registered()


def test_a_recipe_that_a_store_does_not_give_is_not_called_an_older_versions(
    lab: Lab, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, read = pipelines.of(lab, GOOD), artifacts.read_text

    def refuse(run_id: str, name: str) -> str:
        if name == "recipe.json":
            raise StorageError("recipe.json exists, but arrives incomplete.")
        return read(run_id, name)

    monkeypatch.setattr(artifacts, "read_text", refuse)
    _, said = lab.register("kept from", *given, "--refit=train_valid", code=2)
    assert said == "register: recipe.json exists, but arrives incomplete."
