"""Stores before which MLflow does not stand: no client holds up its caller, or writes an old file over a new one."""

import threading
import time
from collections.abc import Iterator

import pytest

from mlflow_spool.errors import NoAnswer
from mlflow_spool.stores import PAUSE, Stores, is_no_answer

ROOT = "s3://models/1/run/artifacts"


class Answered(Exception):
    """As botocore's ClientError: the store answered."""

    def __init__(self) -> None:
        super().__init__("no such bucket")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 404}}


class OfMlflow(Exception):
    error_code = "INVALID_PARAMETER_VALUE"


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Clients that hang wait for it."""
    event = threading.Event()
    yield event
    event.set()


def test_a_client_that_hangs_is_not_waited_for_and_its_store_is_left_alone(released: threading.Event) -> None:
    now, asked = [0.0], list[int]()
    stores = Stores(lambda: now[0])
    with pytest.raises(NoAnswer, match="in time"):
        stores.ask(ROOT, released.wait, 0.05)
    with pytest.raises(NoAnswer, match="s3://models did not answer before"):
        stores.ask(ROOT, lambda: asked.append(1), 30.0)
    assert stores.ask("s3://others/1", lambda: "there", 30.0) == "there"
    now[0] += PAUSE
    assert stores.ask(ROOT, lambda: "back", 30.0) == "back"
    assert asked == []


def test_no_upload_overtakes_an_earlier_one_of_the_same_file_that_hangs(released: threading.Event) -> None:
    now = [0.0]
    stores = Stores(lambda: now[0])
    with pytest.raises(NoAnswer):
        stores.ask(ROOT, released.wait, 0.05, path="table.json")
    now[0] += PAUSE
    with pytest.raises(NoAnswer, match=r"an earlier upload of table\.json"):
        stores.ask(ROOT, lambda: "there", 30.0, path="table.json")
    with pytest.raises(NoAnswer, match=r"an earlier upload of table\.json"):
        stores.watched(ROOT, "table.json", lambda: "there")
    assert stores.ask(ROOT, lambda: "there", 30.0, path="other.json") == "there"
    released.set()
    end = time.monotonic() + 30
    while True:
        try:
            assert stores.ask(ROOT, lambda: "there", 30.0, path="table.json") == "there"
            return
        except NoAnswer:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_client_that_makes_progress_is_waited_for(released: threading.Event) -> None:
    seen = [0]

    def progress() -> int:
        seen[0] += 1
        if seen[0] > 3:
            released.set()
        return seen[0]

    assert Stores().ask(ROOT, released.wait, 0.05, progress=progress) is True


def test_what_a_store_answers_is_no_silence() -> None:
    def refuse() -> None:
        raise Answered

    stores = Stores()
    with pytest.raises(Answered):
        stores.ask(ROOT, refuse, 30.0)
    assert stores.ask(ROOT, lambda: "there", 30.0) == "there"


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (NoAnswer("no"), True),
        (ConnectionRefusedError(111, "refused"), True),
        (TimeoutError("late"), True),
        (Exception("EndpointConnectionError"), True),
        (Answered(), False),
        (OfMlflow("a wrong path"), False),
        (FileNotFoundError(2, "no such file"), False),
        (ImportError("no boto3"), False),
        (ValueError("no bucket"), False),
    ],
    ids=repr,
)
def test_only_an_error_without_an_answer_says_that_a_store_is_away(error: Exception, silent: bool) -> None:
    assert is_no_answer(error) is silent
