"""The HTTP client of the spool, on a server that does not answer."""

import socket
import threading
import time

import pytest

from mlflow_spool.errors import NoAnswer
from mlflow_spool.wire import Way, Wire


def test_a_request_that_is_abandoned_ends_at_once_without_an_answer_and_the_next_goes_out() -> None:
    wire, ended = Wire(), list[float]()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        way = Way(f"http://127.0.0.1:{silent.getsockname()[1]}")

        def ask() -> None:
            with pytest.raises(NoAnswer):
                wire.request(way, "GET", "/health", 60.0)
            ended.append(time.monotonic())

        asking = threading.Thread(target=ask)
        asking.start()
        first, _ = silent.accept()
        assert first.recv(3) == b"GET"
        began = time.monotonic()
        wire.abandon()
        asking.join(30)
        assert ended[0] - began < 20
        with first, pytest.raises(NoAnswer, match="timed out"):
            wire.request(way, "GET", "/health", 0.1)
