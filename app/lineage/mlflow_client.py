"""The MLflow client of the policy in force. After a reload that changes the address or the login, the client is new."""

from dataclasses import replace

from app.kit.access import Access
from app.kit.clock import Clock
from app.kit.errors import Refused
from app.kit.http import Http
from app.kit.mlflow.client import Mlflow
from app.lineage.model import HERE, Place
from app.policy import mlflow
from app.policy.access import access_of
from app.policy.core import Core
from mlflow_spool.settings import subject_of

WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
_MOST = 1000  # clients that are kept: one for each login and workspace


class MlflowOf:
    """A call returns the client; None when the policy has no `mlflow`. `at` returns the client for a place."""

    def __init__(self, core: Core, http: Http) -> None:
        self._policy = core.policies.current
        self._clock = core.clock
        self._http = http
        self._entry: mlflow.Mlflow | None = None
        self._clients: dict[Place, Mlflow] = {}

    def __call__(self) -> Mlflow | None:
        return self.at(HERE)

    def at(self, place: Place) -> Mlflow | None:
        """The client for records of a place. Raises Refused("login") when the policy has no login of that name."""
        entry = self._policy().mlflow
        if entry != self._entry:
            self._entry = entry
            self._clients.clear()
        if entry is None:
            return None
        if place not in self._clients:
            if len(self._clients) >= _MOST:
                self._clients.clear()
            access = _access(entry, place)
            self._clients[place] = Mlflow(self._http, entry.tracking_uri, access, clock=self._clock)
        return self._clients[place]


def _access(entry: mlflow.Mlflow, place: Place) -> Access:
    access = access_of(entry)
    if place.login:
        known = (access_of(entry.model_copy(update={"auth": auth})) for auth in (entry.auth, *entry.logins) if auth)
        found = next((each for each in known if _name(each) == place.login), None)
        if found is None:
            raise Refused("login", f"it waits for the login of {place.login}: add it to `mlflow.logins` of the policy")
        access = found
    headers = {name: value for name, value in access.headers.items() if name.lower() != WORKSPACE_HEADER.lower()}
    return replace(access, headers={**headers, WORKSPACE_HEADER: place.workspace}) if place.workspace else access


def _name(access: Access) -> str:
    """Whom a login names: its user, or the subject of a token that is a JWT."""
    if access.username:
        return access.username
    try:
        return subject_of(access.sent().get("Authorization", "").partition(" ")[2])
    except Refused:  # A file without a token names nobody now.
        return ""


def mlflow_client(entry: mlflow.Mlflow, http: Http, clock: Clock) -> Mlflow:
    """Make the client of the policy's `mlflow`. The caller closes `http`."""
    return Mlflow(http, entry.tracking_uri, access_of(entry), clock=clock)
