"""A fake Airflow with a client of it, for the tests of how the gateway is let in."""

import base64
import json
from typing import Any

from app.kit.airflow.client import AirflowClient, Auth, PasswordAuth
from app.kit.http import open_http
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock


class Site:
    """A fake Airflow with one DAG, and a client of it."""

    def __init__(self, auth: Auth | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.fake = FakeAirflow(self.clock, **options)
        self.fake.add_dag("d")
        self.http = open_http(transport=self.fake.transport())
        self.client = self.client_with(auth or PasswordAuth(self.fake.username, self.fake.password))

    def client_with(self, auth: Auth | None) -> AirflowClient:
        return AirflowClient(self.http, self.fake.url, auth, self.clock)

    def logins(self) -> int:
        return len(self.fake.calls("login"))


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.sig"
