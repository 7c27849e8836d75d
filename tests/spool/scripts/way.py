"""Requests of the spool's own HTTP client to the server at URI, each with other VARIABLES. Prints what each came to."""

import json
import os

import requests.auth
from mlflow.tracking.request_auth import registry

from mlflow_spool.errors import TransportError
from mlflow_spool.records import Call
from mlflow_spool.transport import MlflowServer


class Signature(requests.auth.AuthBase):  # type: ignore[misc]
    """A plugin of MLFLOW_TRACKING_AUTH: each request gets a signature of its own."""

    def __init__(self) -> None:
        self.signed = 0

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        self.signed += 1
        r.headers["Authorization"] = f"Signed {self.signed} {r.method}"
        return r

    def get_name(self) -> str:
        return "test-signature"

    def get_auth(self) -> "Signature":
        return self


def asked(variables: dict[str, str]) -> str:
    os.environ.update(variables)
    try:
        return str(MlflowServer(os.environ["URI"]).send(Call("GET", "/asked", {}), 20.0).status)
    except TransportError as error:
        return str(error)
    finally:
        for name in variables:
            del os.environ[name]


registry._request_auth_provider_registry.register(Signature)
print(json.dumps([asked(variables) for variables in json.loads(os.environ["VARIABLES"])]))
