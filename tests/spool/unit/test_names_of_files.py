"""Under which name MLflow gets a file: its own client puts names into addresses as they are."""

import pytest

from mlflow_spool.files import sent_as


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
