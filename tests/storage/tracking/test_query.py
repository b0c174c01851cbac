"""Conditions of MLflow's filter language."""

import mlflow
import pytest

from storage import UserError
from storage.tracking import query
from tests.stores import EXPERIMENT, Store


@pytest.mark.parametrize("value", ["plain", "driver's", 'a "b" c', "%", "", "é\\n"])
def test_a_value_is_searched_for_as_it_is(store: Store, value: str) -> None:
    with mlflow.start_run(tags={"mark": value, "other": f"{value}."}) as run:
        pass
    wanted = query.both(query.equals("tags.mark", value), "", query.differs("tags.other", value))
    runs = mlflow.search_runs(
        experiment_names=[EXPERIMENT], filter_string=wanted, output_format="list"
    )
    assert [one.info.run_id for one in runs] == [run.info.run_id]


@pytest.mark.parametrize(
    ("value", "wrong"), [("a 'b' \"c\"", "holds both"), ("a\\", "ends with a backslash")]
)
def test_a_value_that_cannot_be_quoted_is_refused_in_one_line(value: str, wrong: str) -> None:
    with pytest.raises(UserError, match=f"Nothing can be searched for by .*: it {wrong}"):
        query.equals("name", value)
