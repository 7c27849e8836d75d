"""What the doctor says of an MLflow: up, away, a wrong address, a login that is not taken."""

from collections.abc import Callable

import httpx
import pytest

from app.cli.doctor.mlflow import examine_mlflow
from app.kit.http import open_http
from app.policy.mlflow import Mlflow
from tests.fakes.clock import ManualClock

Handler = Callable[[httpx.Request], httpx.Response]


def answers(health: int, search: int) -> Handler:
    return lambda request: httpx.Response(health if request.url.path == "/health" else search, json={})


def away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (answers(200, 200), [("mlflow reachable", "ok"), ("mlflow login", "ok")]),
        (answers(200, 401), [("mlflow reachable", "ok"), ("mlflow login", "fail")]),
        (answers(200, 500), [("mlflow reachable", "ok"), ("mlflow login", "fail")]),
        (answers(404, 404), [("mlflow reachable", "fail")]),
        (away, [("mlflow reachable", "fail")]),
    ],
)
async def test_each_state_has_its_lines(handler: Handler, expected: list[tuple[str, str]]) -> None:
    async with open_http(transport=httpx.MockTransport(handler)) as http:
        entry = Mlflow(tracking_uri="http://mlflow.test:5000")
        found = await examine_mlflow(entry, http, ManualClock(), has_login=True)
        assert [(finding.check, finding.level) for finding in found] == expected
        assert all(finding.next_step for finding in found if finding.level != "ok")
        assert len(await examine_mlflow(entry, http, ManualClock(), has_login=False)) == 1
