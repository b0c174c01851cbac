"""The store: whether it answers, and who makes a new one."""

import pytest

from storage import StorageError, tracking
from tests.stores import Store


@pytest.mark.parametrize("uri", ["http://ada:hush@127.0.0.1:1", "http://127.0.0.1:1/?token=hush"])
def test_a_server_that_does_not_answer_is_named_without_credentials(
    store: Store, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StorageError, match=r"answers at http://127\.0\.0\.1:1[/ ]") as got:
        tracking.prepare()
    assert "hush" not in str(got.value)
