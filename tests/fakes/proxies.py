"""Proxies before a server: each puts its own body in place of the server's error bodies. The statuses stay."""

from collections.abc import Callable
from typing import Any, Final

from tests.fakes.faults import Call, Reply

Proxy = Callable[[Call, Reply], Reply]


def rewording(body: Any, *statuses: int, content_type: str = "application/json") -> Proxy:
    """Every error gets this body; with `statuses` only these errors do."""

    def proxy(_call: Call, reply: Reply) -> Reply:
        if reply.status < 400 or (statuses and reply.status not in statuses):
            return reply
        return Reply(reply.status, body, {"content-type": content_type})

    return proxy


#: Other words, in JSON. Some are Airflow's own words for something else.
WORDINGS: Final[dict[str, Proxy]] = {
    "short words": rewording({"detail": "not found"}),
    "the framework's words": rewording({"detail": "Not Found"}),
    "translated words": rewording({"detail": "No se encuentra la ejecución"}),
    "words about a DAG": rewording({"detail": "The Dag with ID: `x` was not found", "title": "DAG not found"}),
    "words about a run": rewording({"detail": "The DagRun was not found", "title": "DAGRun not found"}),
    "words about import errors": rewording({"detail": "Dag has import errors"}),
    "words about a token": rewording({"detail": "Invalid JWT token"}),
    "another member": rewording({"message": "no Route matched with those values"}),
    "an unknown route": rewording({"error": "API route not found"}),
    "no words": rewording({}),
}
#: A body of the proxy's own in place of what Airflow says of what is not there, or there already.
PAGES: Final[dict[str, Proxy]] = {
    "a page": rewording("<html><h1>404 Not Found</h1></html>", 404, 409, content_type="text/html"),
    "an empty body": rewording("", 404, 409, content_type="text/plain"),
    "a list": rewording([], 404, 409),
}
