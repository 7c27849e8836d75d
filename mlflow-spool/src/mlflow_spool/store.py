"""MLflow's stores with the spool below them: each of their HTTP calls goes through `Spool.call`."""

import functools
import json
from typing import Any

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.model_registry.rest_store import RestStore as RegistryRestStore
from mlflow.store.tracking.rest_store import RestStore as TrackingRestStore
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.proto_json_utils import parse_dict

from mlflow_spool.errors import Offline, Refused
from mlflow_spool.settings import read_settings, server_uri
from mlflow_spool.spool import Spool, open_spool
from mlflow_spool.transport import MlflowServer


class SpoolOffline(MlflowException):
    """MLflow is away, and this machine's journal does not have the answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=TEMPORARILY_UNAVAILABLE)


def spool_for(store_uri: str) -> Spool:
    """The spool of this process for a tracking URI, `spool+http://...` or `http://...`."""
    return open_spool(server_uri(store_uri), MlflowServer, read_settings())


def _call(spool: Spool, method: str, endpoint: str, json_body: str | None, response: Any) -> Any:
    try:
        answer = spool.call(method, endpoint, json.loads(json_body) if json_body else None)
    except Refused as refused:
        body = {"error_code": "INTERNAL_ERROR", "message": str(refused), **refused.body}
        raise RestException(body) from None
    except Offline as error:
        raise SpoolOffline(str(error)) from None
    parse_dict(js_dict=answer, message=response)
    return response


class SpoolTrackingStore(TrackingRestStore):
    """The tracking store behind `spool+http://`."""

    def __init__(self, store_uri: str) -> None:
        super().__init__(functools.partial(get_default_host_creds, server_uri(store_uri)))
        self._spool = spool_for(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: float | None = None,  # noqa: ARG002 (MLflow's signature; the spool has timeouts of its own)
        response_proto: Any = None,
    ) -> Any:
        methods = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
        usual, method = methods[api]
        response = response_proto or api.Response()
        return _call(self._spool, method, endpoint or usual, json_body, response)


class SpoolRegistryStore(RegistryRestStore):
    """The model registry behind `spool+http://`."""

    def __init__(self, store_uri: str) -> None:
        super().__init__(functools.partial(get_default_host_creds, server_uri(store_uri)))
        self._spool = spool_for(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None,
        call_all_endpoints: bool = False,
        extra_headers: Any = None,  # noqa: ARG002 (MLflow's signature; only Databricks' store passes some)
    ) -> Any:
        if call_all_endpoints:
            endpoint, method = self._get_all_endpoints_from_method(api)[0]
        else:
            endpoint, method = self._get_endpoint_from_method(api)
        return _call(self._spool, method, endpoint, json_body, self._get_response_from_method(api))

    def _await_model_version_creation(self, mv: Any, await_creation_for: float | None) -> None:
        """Training does not wait for a version in the journal: it is registered later."""
        if str(mv.status) != "PENDING_REGISTRATION" or not self._spool.knows_version(mv.name, mv.version):
            super()._await_model_version_creation(mv, await_creation_for)
