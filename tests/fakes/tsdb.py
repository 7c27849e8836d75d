"""The past as Prometheus has it: the test says when each alert fired and when Prometheus ran; range queries are answered."""

import json
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

When = list[tuple[datetime, datetime]]  # from the first sample to the last one

MOST_POINTS = 11_000  # as the real one


class FakeTsdb:
    """`ran`: when `up` has samples. `fired`: labels and times of each alert. `says` answers in place of it when it
    returns something. `asked` are the calls with their parameters."""

    def __init__(self) -> None:
        self.ran: When = []
        self.fired: list[tuple[dict[str, str], When]] = []
        self.config = "global: {scrape_interval: 15s}"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[httpx.Headers] = []
        self.says: Callable[[str, dict[str, str]], httpx.Response | Exception | None] = lambda call, parameters: None

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self.take)

    def take(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request."""
        call, parameters = request.url.path.removeprefix("/api/v1/"), dict(request.url.params)
        self.asked.append((call, parameters))
        self.headers.append(request.headers)
        instead = self.says(call, parameters)
        if isinstance(instead, Exception):
            raise instead
        return instead or self._answer(call, parameters)

    @contextmanager
    def served(self) -> Iterator[str]:
        """The same on loopback, at the address that this gives."""
        fake = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                request = httpx.Request("GET", f"http://x{self.path}", headers=dict(self.headers))
                answer = fake.take(request)
                self.send_response(answer.status_code)
                for name, value in {**answer.headers, "content-length": str(len(answer.content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: object) -> None:
                """Every question would be a line."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, call: str, parameters: dict[str, str]) -> httpx.Response:
        if call == "status/config":
            return good({"yaml": self.config})
        assert call == "query_range"
        start, end, step = (float(parameters[name]) for name in ("start", "end", "step"))
        times = [start + number * step for number in range(int((end - start) / step) + 1)]
        if len(times) > MOST_POINTS:
            return refused(400, "exceeded maximum resolution of 11,000 points per timeseries")
        if parameters["query"] == "count(up)":
            series: list[tuple[dict[str, str], When]] = [({}, self.ran)]
        else:
            named = {"__name__": "ALERTS", "alertstate": "firing"}
            series = [(named | labels, when) for labels, when in self.fired]
        result = [{"metric": labels, "values": _values(when, times)} for labels, when in series]
        return good({"resultType": "matrix", "result": [item for item in result if item["values"]]})


def good(data: Any) -> httpx.Response:
    content = json.dumps({"status": "success", "data": data})
    return httpx.Response(200, content=content, headers={"Content-Type": "application/json"})


def refused(status: int, error: str) -> httpx.Response:
    content = json.dumps({"status": "error", "errorType": "bad_data", "error": error})
    return httpx.Response(status, content=content, headers={"Content-Type": "application/json"})


def _values(when: When, times: list[float]) -> list[list[Any]]:
    found = []
    for begin, end in when:
        found += times[bisect_left(times, begin.timestamp()) : bisect_right(times, end.timestamp())]
    return [[time, "1"] for time in found]
