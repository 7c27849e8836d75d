"""Under which name MLflow gets a file: its own client puts names into addresses as they are."""

import pytest

from mlflow_spool.files import sent_as
from mlflow_spool.uploads import split_root

RUN = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deep/with space.txt", "deep/with space.txt"),
        ("größe.txt", "größe.txt"),
        ("images/val#pred%step%0%timestamp%17%uuid.png", "images/val"),
        ("a?b=c.txt", "a"),
        ("a%20b.txt", "a b.txt"),
        ("100%.txt", "100%.txt"),
        ("pred%step%0%timestamp%17%uuid.png", "pred%step%0%timestamp%17%uuid.png"),
        ("50%25.txt", "50%.txt"),
    ],
)
def test_a_name_is_the_one_that_mlflows_client_would_give(name: str, expected: str) -> None:
    assert sent_as(name) == expected


@pytest.mark.parametrize(
    ("uri", "root", "below"),
    [
        (f"mlflow-artifacts:/1/{RUN}/artifacts", f"mlflow-artifacts:/1/{RUN}/artifacts", ""),
        (f"mlflow-artifacts:/1/{RUN}/artifacts/model/", f"mlflow-artifacts:/1/{RUN}/artifacts", "model"),
        (f"mlflow-artifacts:/artifacts/1/{RUN}/artifacts/a", f"mlflow-artifacts:/artifacts/1/{RUN}/artifacts", "a"),
        (f"mlflow-artifacts:/1/models/m-{RUN}/artifacts", f"mlflow-artifacts:/1/models/m-{RUN}/artifacts", ""),
        (f"spool-artifacts:/m-spool-{RUN}/artifacts/x", f"spool-artifacts:/m-spool-{RUN}/artifacts", "x"),
        (
            f"spool-artifacts:/spool-{RUN}/artifacts/a/artifacts",
            f"spool-artifacts:/spool-{RUN}/artifacts",
            "a/artifacts",
        ),
        (f"mlflow-artifacts:/1/traces/tr-{RUN}/artifacts", f"mlflow-artifacts:/1/traces/tr-{RUN}/artifacts", ""),
        ("mlflow-artifacts:/own", "mlflow-artifacts:/own", ""),
    ],
)
def test_the_root_of_a_run_ends_after_its_id(uri: str, root: str, below: str) -> None:
    assert split_root(uri) == (root, below)
