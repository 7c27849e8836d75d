"""The clients of the Airflows of the policy in force. A reload makes new clients only where address or login changed."""

from collections.abc import Mapping
from pathlib import Path

from app.kit.airflow.auth import Auth, PasswordAuth, TokenAuth, TokenFileAuth
from app.kit.airflow.client import AirflowClient
from app.kit.clock import Clock
from app.kit.http import Http
from app.policy import values
from app.policy.access import access_of
from app.policy.core import Core
from app.policy.schema import Airflow, Policy


class AirflowClients:
    """Call it for the clients by name. A client keeps its token across a reload that leaves its address and login alone."""

    def __init__(self, core: Core, http: Http) -> None:
        self._policy = core.policies.current
        self._clock = core.clock
        self._http = http
        self._of: Policy | None = None
        self._entries: dict[str, Airflow] = {}
        self._clients: dict[str, AirflowClient] = {}

    def __call__(self) -> Mapping[str, AirflowClient]:
        policy = self._policy()
        if policy is not self._of:
            entries = {entry.name: entry for entry in policy.airflow}
            self._clients = {name: self._client(entry) for name, entry in entries.items()}
            self._of, self._entries = policy, entries
        return self._clients

    def cap(self, target: str) -> int | None:
        """How many of our DAG runs may be open at once at an outbox target `airflow:<name>`; None: any number. No other kind
        of target has a cap, also when an Airflow has its name."""
        kind, _, name = target.partition(":")
        entry = self._policy().airflow_named(name) if kind == "airflow" else None
        return entry.max_parallel if entry else None

    def _client(self, entry: Airflow) -> AirflowClient:
        known = self._entries.get(entry.name)
        if known is not None and _address_and_login(known) == _address_and_login(entry):
            return self._clients[entry.name]
        return airflow_client(entry, self._http, self._clock)


def airflow_client(entry: Airflow, http: Http, clock: Clock) -> AirflowClient:
    """The client of an Airflow of the policy. The caller closes `http`."""
    access = access_of(entry, login=False)  # The client logs in itself, and again after a refusal.
    return AirflowClient(http.using(access), entry.url, _auth(entry), clock, api=entry.api)


def _address_and_login(entry: Airflow) -> tuple[object, ...]:
    return entry.url, entry.api, entry.auth, entry.headers, entry.ca_file


def _auth(airflow: Airflow) -> Auth | None:
    auth = airflow.auth
    if auth is None:
        return None
    if isinstance(auth, values.PasswordAuth):
        return PasswordAuth(auth.username, auth.password.get_secret_value())
    if isinstance(auth, values.TokenAuth):
        return TokenAuth(auth.token.get_secret_value())
    return TokenFileAuth(Path(auth.token_file))
