"""The spool's fake MLflow (tests/spool/fake.py) behind HTTP, for a gateway in this process."""

import json
from base64 import b64decode
from collections.abc import Callable

import httpx

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.records import Call
from tests.spool.fake import FakeMlflow


class MlflowSite:
    """`fake` holds what arrived and has the plan of faults; `down` refuses every connection; `runs_as` has the name of each
    run, with the login and the workspace of its creation."""

    def __init__(self, fake: FakeMlflow | None = None) -> None:
        self.fake = fake or FakeMlflow()
        self.down = False
        self.runs_as: dict[str, tuple[str, str]] = {}
        self.during: Callable[[], None] | None = None  # called once, after the next request was carried out

    def transport(self) -> httpx.AsyncBaseTransport:
        return _Transport(self)


def _login(request: httpx.Request) -> str:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    return b64decode(value).decode() if kind == "Basic" else str(value)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, site: MlflowSite) -> None:
        self._site = site

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._site.down:
            raise httpx.ConnectError("refused", request=request)
        content = await request.aread()
        body = json.loads(content) if content else dict(request.url.params)
        if request.url.path.endswith("/runs/create"):
            place = (_login(request), request.headers.get("X-MLFLOW-WORKSPACE", ""))
            self._site.runs_as[str(body.get("run_name"))] = place
        try:
            answer = self._site.fake.send(Call(request.method, request.url.path, body), 1.0)
        except NotSent as error:
            raise httpx.ConnectError(str(error), request=request) from None
        except NoAnswer as error:
            raise httpx.ReadTimeout(str(error), request=request) from None
        finally:
            during, self._site.during = self._site.during, None
            if during is not None:
                during()
        return httpx.Response(answer.status, json=answer.body)
