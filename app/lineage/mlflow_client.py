"""The MLflow client of the policy in force. After a reload that changes the address or the login, the client is new."""

from app.kit.clock import Clock
from app.kit.http import Http
from app.kit.mlflow.client import Mlflow
from app.policy import mlflow
from app.policy.access import access_of
from app.policy.core import Core


class MlflowOf:
    """A call returns the client; None when the policy has no `mlflow`."""

    def __init__(self, core: Core, http: Http) -> None:
        self._policy = core.policies.current
        self._clock = core.clock
        self._http = http
        self._entry: mlflow.Mlflow | None = None
        self._client: Mlflow | None = None

    def __call__(self) -> Mlflow | None:
        entry = self._policy().mlflow
        if entry != self._entry:
            self._client = None if entry is None else mlflow_client(entry, self._http, self._clock)
            self._entry = entry
        return self._client


def mlflow_client(entry: mlflow.Mlflow, http: Http, clock: Clock) -> Mlflow:
    """Make the client of the policy's `mlflow`. The caller closes `http`."""
    return Mlflow(http, entry.tracking_uri, access_of(entry), clock=clock)
