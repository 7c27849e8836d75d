"""The gateway over HTTP: one request. An answer that nobody understands counts as no answer."""

import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Protocol

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.records import Answer, answer_of
from mlflow_spool.wire import Response

PATH = "/api/v1/metadata"
TAKEN = 202
LARGEST = 1_000_000  # bytes of an answer, headers included; the gateway's are far smaller


class Taker(Protocol):
    """The gateway, over any HTTP client."""

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        """Send one POST /api/v1/metadata, and never repeat it. timeout: seconds.

        The answer has the status 202 only if the gateway has every record of the request. Raises NotSent, or NoAnswer when
        no answer comes or nobody understands it.
        """
        ...


class Gateway:
    """The gateway at `url`, with a token of the scope `metadata`."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/") + PATH
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        # Without a handler for redirects: a redirected POST becomes a GET, whose answer says nothing about the records.
        self._opener = urllib.request.OpenerDirector()
        proxies = urllib.request.ProxyHandler({} if _is_here(url) else None)
        for handler in (proxies, urllib.request.UnknownHandler(), _Http(), _Https()):
            self._opener.add_handler(handler)

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        """See `Taker`."""
        try:
            request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers, method="POST")
            with self._opener.open(request, timeout=timeout) as response:
                answer = answer_of(response.status, response.read(), response.headers.get("Retry-After"))
        except urllib.error.URLError as error:
            # urllib wraps the errors before the request has left. Only a timeout may belong to the answer.
            raise (NoAnswer if isinstance(error.reason, TimeoutError) else NotSent)(str(error.reason)) from None
        except (ValueError, http.client.InvalidURL) as error:
            # http.client checks the address and the headers before it connects.
            raise NotSent(f"{type(error).__name__}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from None
        if answer.status == TAKEN and not _has_all(answer, len(body["records"])):
            raise NoAnswer(f"a {TAKEN} that is not the gateway's: {json.dumps(answer.body)[:200]}")
        return answer


def _is_here(url: str) -> bool:
    """Whether a URL leads to this machine: no proxy can reach that."""
    try:
        name = (urllib.parse.urlsplit(url).hostname or "").rstrip(".")
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _has_all(answer: Answer, sent: int) -> bool:
    """Whether the gateway counts as many records as were `sent`. A proxy or another service may answer 202 too."""
    counts = [answer.body.get(name) for name in ("taken", "known")]
    return all(type(count) is int for count in counts) and sum(counts) == sent  # type: ignore[arg-type]


class _Response(Response):
    largest, slowest = LARGEST, float("inf")


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)
