"""A real `trigger-gateway serve` as a process, with its embedded servers, and what tests ask it over HTTP."""

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.processes import clean_environment
from tests import plain
from tests.e2e.processes import Process, eventually

OVER = ("succeeded", "failed", "dead", "cancelled")  # states of a trigger that nothing changes any more


@dataclass
class Gateway(Process):
    """Serves `policy` at a port of its own. `variables` are what the policy's ${...} stand for."""

    policy: str
    variables: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.name, self.ready_path = "trigger-gateway", "/readyz"

    def command(self) -> list[str | Path]:
        (self.folder / "policy.yaml").write_text(self.policy)
        return [Path(sys.executable).with_name("trigger-gateway"), "serve"]

    def environment(self) -> dict[str, str]:
        return clean_environment(
            GATEWAY_POLICY_FILE=str(self.folder / "policy.yaml"),
            GATEWAY_DATA_DIR=str(self.folder / "data"),
            GATEWAY_PORT=str(self.port),
            GATEWAY_FOLLOW_INTERVAL="1",
            GATEWAY_PAUSED_RETRY="1",
            GATEWAY_DELIVERY_TIMEOUT="6",  # A delivery that was killed is taken up again after twice this time.
            **self.variables,
        )

    @property
    def webhook(self) -> str:
        return f"{self.url}/api/v1/webhooks/alertmanager"

    def kill(self) -> None:
        """kill -9 of the gateway alone: its database and its Valkey live on, as they do when a process crashes."""
        os.kill(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()

    def get(self, path: str, **parameters: str) -> Any:
        """The body of a GET below /api/v1; anything but 200 fails the test."""
        answer = plain.get(f"{self.url}/api/v1{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        """The body of a POST below /api/v1; anything but 2xx fails the test."""
        answer = plain.post(f"{self.url}/api/v1{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def triggers(self, route: str, **group: str) -> list[dict[str, Any]]:
        """Every trigger of a route, newest first, of one group if it is given."""
        items = self.get("/triggers", route=route)["items"]
        return [item for item in items if not group or item["group"] == group]

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Every episode whose labels are these, among others."""
        return [a for a in self.get("/alerts")["items"] if labels.items() <= a["labels"].items()]

    def settled(self, route: str, *, within: float = 60.0, **group: str) -> dict[str, Any]:
        """The newest trigger of this group once it is over."""

        def over() -> dict[str, Any] | None:
            return next((trigger for trigger in self.triggers(route, **group) if trigger["state"] in OVER), None)

        return eventually(f"a trigger of {route} {group} to be over", over, within=within)
