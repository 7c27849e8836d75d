"""Records when the real Alertmanager posts what: alerts begin and end by a plan, and a web server notes each notification.

    python -m tests.e2e.timings

writes tests/fixtures/alertmanager_timings.json, with which a unit test compares `app.replay.prometheus.notify`. It takes
three minutes. Times are seconds since the start of Alertmanager.
"""

import json
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any, Final

import httpx

from app.kit.clock import SystemClock
from app.kit.embedded.processes import free_ports
from tests.e2e.processes import Process, require_binary, write_yaml
from tests.unit.timings import FILE

#: Seconds: group_wait, group_interval, repeat_interval.
PACES: Final = {"quick": (2, 4, 11), "even": (1, 4, 12), "long": (1, 2, 60)}

#: (pace, group, alert, begins, ends); the end 0 never comes. A quick alert of 2 s has its ticks at 4, 8, 12, ... s.
#: Alertmanager forgets empty groups every 30 s.
Step = tuple[str, str, str, float, float]
SHORT: Final[Sequence[Step]] = [
    ("quick", "lone", "a", 2, 14),
    ("quick", "ends before the first tick", "a", 2, 2.8),
    ("quick", "ends before the second tick", "a", 2, 6),
    ("quick", "joined", "a", 2, 14),
    ("quick", "joined", "b", 6, 0),
    ("quick", "begins and ends between two ticks", "a", 2, 0),
    ("quick", "begins and ends between two ticks", "b", 5.5, 6.7),
    ("quick", "begins and ends between two ticks", "b", 9.5, 10.7),
    ("quick", "fires again before its end is posted", "a", 2, 5.5),
    ("quick", "fires again before its end is posted", "a", 6.6, 0),
    ("quick", "fires again in an empty group", "a", 2, 6),
    ("quick", "fires again in an empty group", "a", 10, 0),
    ("even", "repeats", "a", 2, 0),
]
LONG: Final[Sequence[Step]] = [
    *SHORT,
    ("quick", "fires again after the group is forgotten", "a", 2, 6),
    ("quick", "fires again after the group is forgotten", "a", 41, 0),
    ("quick", "ends in turn", "a", 2, 18),
    ("quick", "ends in turn", "b", 2.4, 46),
    ("quick", "ends in turn", "c", 30, 70),
    ("quick", "flaps in three groups", "a", 2, 3.2),
    ("quick", "flaps in three groups", "a", 36.5, 37.7),
    ("quick", "flaps in three groups", "a", 70.5, 74.5),
    ("long", "repeats", "a", 2, 0),
    ("long", "repeats beside a flap", "a", 2, 0),
    ("long", "repeats beside a flap", "b", 20, 34),
]
SECONDS_SHORT: Final = 22
SECONDS_LONG: Final = 150


@dataclass
class Recorded(Process):
    """An Alertmanager with a route for each pace."""

    webhook: str

    def __post_init__(self) -> None:
        self.name, self.ready_path = "alertmanager", "/-/ready"

    def command(self) -> list[str | Path]:
        names = ("group_wait", "group_interval", "repeat_interval")
        routes = [
            {"matchers": [f'pace="{pace}"'], **{key: f"{value}s" for key, value in zip(names, values, strict=True)}}
            for pace, values in PACES.items()
        ]
        route = {"receiver": "test", "group_by": ["group"], "routes": routes}
        config = {"route": route, "receivers": [{"name": "test", "webhook_configs": [{"url": self.webhook}]}]}
        file = write_yaml(self.folder / "alertmanager.yml", config)
        options = [f"--config.file={file}", f"--storage.path={self.folder / 'data'}", "--cluster.listen-address="]
        return [require_binary("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{self.port}"]


class Hook:
    """Takes notifications, and keeps each with its moment."""

    def __init__(self) -> None:
        posts: list[tuple[float, Any]] = []
        clock = SystemClock()
        self.posts = posts

        class Page(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = clock.now().timestamp()
                posts.append((at, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Every notification would be a line."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def record(folder: Path, steps: Iterable[Step], seconds: float) -> dict[str, Any]:
    """Play these steps to a real Alertmanager, and return what it posted in so many seconds."""
    hook, clock = Hook(), SystemClock()
    server = Recorded(folder, free_ports(1)[0], hook.url)
    planned = sorted(moment for step in steps for moment in _moments(step))
    alerts: dict[tuple[str, str, str], list[list[float]]] = {}
    start = clock.now().timestamp()
    try:
        server.start()
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            for due, ends, labels in planned:
                sleep(max(start + due - clock.now().timestamp(), 0))
                at = round(clock.now().timestamp(), 3)
                spans = alerts.setdefault(labels, [])
                if ends:
                    spans[-1].append(at)
                else:
                    spans.append([at])
                client.post("/api/v2/alerts", json=[_body(labels, spans[-1])]).raise_for_status()
            sleep(max(start + seconds - clock.now().timestamp(), 0))
    finally:
        with suppress(AttributeError):  # It did not start.
            server.stop()
        hook.stop()
    return {
        "paces": PACES,
        "seconds": seconds,
        "alerts": [
            {
                "pace": pace,
                "group": group,
                "name": name,
                "spans": [[round(t - start, 3) for t in span] for span in spans],
            }
            for (pace, group, name), spans in alerts.items()
        ],
        "notifications": [_notification(at - start, body) for at, body in hook.posts],
    }


def _moments(step: Step) -> list[tuple[float, bool, tuple[str, str, str]]]:
    pace, group, name, begins, ends = step
    labels = (pace, group, name)
    return [(begins, False, labels), *([(ends, True, labels)] if ends else [])]


def _body(labels: tuple[str, str, str], span: Sequence[float]) -> dict[str, Any]:
    times = {key: _written(at) for key, at in zip(("startsAt", "endsAt"), span, strict=False)}
    return {"labels": dict(zip(("pace", "group", "alertname"), labels, strict=True)), **times}


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _notification(at: float, body: Mapping[str, Any]) -> dict[str, Any]:
    labels = body["alerts"][0]["labels"]
    statuses = {alert["labels"]["alertname"]: alert["status"] for alert in body["alerts"]}
    return {"at": round(at, 3), "pace": labels["pace"], "group": labels["group"], "alerts": statuses}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = record(Path(temporary), LONG, SECONDS_LONG)
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{FILE}: {len(found['notifications'])} notifications", file=sys.stderr)
