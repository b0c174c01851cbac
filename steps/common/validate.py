"""Check parameters before any other step starts, so that no hour is lost to a typo.

Names are checked against the tables that define them. Some of those take seconds to import, so they
are imported inside the functions, only when needed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlflow.entities import Run

from steps.common.parameters import PipelineParameters, SearchParameters
from steps.common.results import TRAINING_STEPS, read_training, rmse_name
from storage import UserError
from storage.tracking import names, tags
from storage.tracking.registry import Registry
from taxi import TripError, baselines, distances, schema, spaces

if TYPE_CHECKING:
    from storage.cluster.executor import Cluster

DEVICES = ("cpu", "cuda")
REFITS = ("train_valid", "train")
# a worker with another version of these might train a different booster
TRAINING_PACKAGES = ("xgboost", "numpy", "scipy")
DEFAULT_FEATURES = SearchParameters.model_fields["features"].default


def check_pipeline(params: PipelineParameters) -> None:
    """Check every value that otherwise only a later step would refuse.

    Raises:
        TripError, UserError: a value cannot be used.
    """
    schema.raw_columns(params.taxi)
    baselines.select_baselines(params.models)
    distances.select_distance_kind(params.judge_by)
    check_search(params)
    check_refit(params.refit)
    check_refit_workers(params.refit_workers, params.scheduler)
    names.check_name(params.model_name)


def check_refit(refit: str) -> None:
    """Refuse a refit that does not exist.

    Raises:
        TripError: it is none of REFITS.
    """
    if refit not in REFITS:
        raise TripError(f"Unknown refit {refit!r}. Choose from {list(REFITS)}.")


def check_refit_workers(n_workers: int, scheduler: str) -> None:
    """Check that there are enough workers for a refit.

    Raises:
        UserError: there is no cluster, or it has fewer workers.
        StorageError: nobody answers at the scheduler, or its workers cannot be used.
    """
    if n_workers and not scheduler:
        raise UserError(
            f"refit_workers={n_workers} are of a Dask cluster. Pass -P scheduler=<its address>, or "
            f"leave refit_workers out."
        )
    if n_workers:
        from storage.cluster.connection import connected

        with connected(scheduler, code=[], packages=[], on_gpus=False) as cluster:
            check_enough_workers(n_workers, cluster)


def check_enough_workers(n_workers: int, cluster: "Cluster") -> None:
    """Check that a cluster has enough workers for a refit.

    Raises:
        UserError: it has fewer.
    """
    n_found = len(cluster.client.scheduler_info()["workers"])
    if n_found < n_workers:
        raise UserError(
            f"refit_workers={n_workers}, and {cluster.address} has {n_found}. Start more, or "
            f"pass another number, which gives other boosters."
        )


def check_given_runs(given: Mapping[str, Run], judge_by: str) -> None:
    """Check that the candidates of the given runs can be compared.

    Args:
        given: step -> its run.
        judge_by: the parameter.
    Raises:
        UserError: a candidate has no RMSE with this kind of distance, because an older version
            of the project logged it.
    """
    name = rmse_name(distances.select_distance_kind(judge_by))
    for step in sorted(given.keys() & {*TRAINING_STEPS}):
        for candidate in read_training(given[step]).candidates:
            if name not in candidate.scores:
                raise UserError(
                    f"judge_by={judge_by} needs the metric {name} of each candidate, and run "
                    f"{candidate.run_id} has none: an older version of this project made it. Run "
                    f"{step} again, or leave out judge_by."
                )


def check_one_taxi(model_name: str, taxi: str) -> None:
    """Check that the champion that a model would be compared with is of the same taxi.

    Raises:
        UserError: it is of another taxi.
        StorageError: the registry does not answer.
    """
    champion = Registry(model_name).champion()
    trained_for = champion.tags.get(tags.TAXI, taxi) if champion else taxi
    if champion and trained_for != taxi:
        raise UserError(
            f"{model_name} is a model of {trained_for} trips: version {champion.version}, its "
            f"champion, is. Pass another model_name for {taxi} ones, such as "
            f"-P model_name={model_name}-{taxi}."
        )


def check_search(params: SearchParameters) -> None:
    """Check the parameters of a search.

    Raises:
        TripError: there is no such space, feature set or device.
        StorageError: the scheduler does not answer, or its workers cannot be used.
    """
    spaces.select_space(params.search_space)
    if params.features != DEFAULT_FEATURES:
        from taxi.features import check_feature_set

        check_feature_set(params.features)
    check_device(params.device, params.scheduler)


def check_device(device: str, scheduler: str) -> None:
    """Refuse an unknown device, a missing GPU, or a cluster that cannot be used."""
    if device not in DEVICES:
        raise TripError(f"Unknown device {device!r}. Choose from {list(DEVICES)}.")
    if scheduler:
        from storage.cluster.connection import connected

        with connected(scheduler, code=[], packages=TRAINING_PACKAGES, on_gpus=device == "cuda"):
            return
    if device == "cuda":
        from taxi.boosting import check_gpu

        check_gpu()
