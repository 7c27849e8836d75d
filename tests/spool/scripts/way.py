"""Requests of the spool's own HTTP client to the server at URI, each with other variables. Prints what each came to, and whom
tokens name."""

import json
import os
from typing import Any

import requests.auth
from mlflow.tracking.request_auth import registry
from mlflow_spool.errors import TransportError
from mlflow_spool.records import Call
from mlflow_spool.transport import MlflowServer, subject_of


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
found: dict[str, Any] = {
    "requests": [asked(variables) for variables in json.loads(os.environ["VARIABLES"])],
    "subjects": [subject_of(token) for token in json.loads(os.environ["TOKENS"])],
}
print(json.dumps(found))
