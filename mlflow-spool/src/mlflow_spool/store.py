"""MLflow's stores with the spool below them: each of their HTTP calls goes through `Spool.call`."""

import functools
import json
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.entities import LoggedModel, Metric, Run
from mlflow.entities.model_registry import RegisteredModel
from mlflow.entities.span import Span
from mlflow.entities.trace_info import TraceInfo
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.protos.service_pb2 import GetMetricHistory, SearchLoggedModels
from mlflow.store.entities import PagedList
from mlflow.store.model_registry.rest_store import RestStore as RegistryRestStore
from mlflow.store.tracking.rest_store import RestStore as TrackingRestStore
from mlflow.tracking import fluent
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.proto_json_utils import parse_dict

from mlflow_spool import quiet, traces
from mlflow_spool.errors import NotKnown, Offline, Refused, TransportError
from mlflow_spool.records import EXPERIMENT_OF
from mlflow_spool.settings import read_settings, server_uri, without_login
from mlflow_spool.spool import Spool, open_spool
from mlflow_spool.transport import MlflowServer, user_of, workspace_now

#: Code that goes on with a run that somebody else made, as the module and the function that read the run first. So do those
#: of MLflow whose names begin with `log_`.
RESUMING = {
    ("mlflow.tracking.fluent", "start_run"),
    ("mlflow.tracking.client", "update_run"),
    ("mlflow.tracking.client", "set_terminated"),
    ("lightning.pytorch.loggers.mlflow", "experiment"),
    ("pytorch_lightning.loggers.mlflow", "experiment"),
}
#: Code that logs, and looks for a model first.
LOGGING = {
    ("mlflow.store.artifact.runs_artifact_repo", "_get_logged_model_artifact_repo"),
    ("mlflow.tracking._model_registry.fluent", "_get_logged_models_from_run"),
    ("mlflow.tracking.fluent", "_set_active_model"),
}
REGISTERING = ("mlflow.tracking._model_registry.fluent", "_register_model")
#: Code that changes something of a registered model, and reads the model first.
CHANGING = {
    ("mlflow.tracking.client", "_raise_if_prompt"),
    ("mlflow.store.model_registry.abstract_store", "create_prompt_version"),
}
#: Code that searches in an experiment that it finds by its name. Nothing found would be a lie.
SEARCHING = {("mlflow.tracking.fluent", "search_runs"), ("mlflow.experiments", "get_experiment")}
#: Code that searches for an experiment by its name, and creates it if there is none.
CREATING = {("accelerate.tracking", "start"), ("accelerate.tracking", "__init__")}
NAMED = re.compile(r"name ?= ?'(.*)'")


class SpoolOffline(MlflowException):
    """MLflow is away, and this machine's journal does not have the answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=TEMPORARILY_UNAVAILABLE)


_servers: dict[tuple[str, str, str], MlflowServer] = {}  # by address, user and workspace
_dropping = False  # whether a trace was dropped
_unusable: set[tuple[int, str]] = set()  # processes and servers without a journal


def server_for(store_uri: str) -> MlflowServer:
    """The server of a tracking URI with the login and the workspace of this moment."""
    uri = server_uri(store_uri)
    key = (uri, user_of(uri), workspace_now())
    if key in _servers:
        _servers[key].refresh()
    else:
        _servers[key] = MlflowServer(uri, key[2])
    return _servers[key]


def spool_for(store_uri: str) -> Spool | None:
    """The spool of this process for a tracking URI, `spool+http://...` or `http://...`, with MLflow's settings of now.

    Each login and each workspace has a journal of its own, so that nothing is delivered as somebody else, or elsewhere. None
    when its journal has no place: a disk that cannot be written, a user without a home. Then MLflow works as without the
    spool, and the log has a warning, once.
    """
    if (os.getpid(), server_uri(store_uri)) in _unusable:
        return None
    server = server_for(store_uri)
    settings = replace(read_settings(), user=server.user, workspace=server.workspace)
    try:
        return open_spool(server_uri(store_uri), lambda: server, settings)
    except (OSError, sqlite3.Error) as error:
        give_up(store_uri, f"{settings.folder} cannot hold a journal ({error})")
        return None


def reach(store_uri: str) -> None:
    """Return once MLflow answers, before its own client asks for what is never kept. That client would wait for minutes.

    Raises SpoolOffline.
    """
    spool = spool_for(store_uri)
    if spool is not None:
        try:
            spool.asking.reach()
        except Offline as error:
            raise SpoolOffline(f"MLflow at {spool.uri} is away ({error}), and this call is not kept") from None


def give_up(store_uri: str, reason: str) -> None:
    """From now on this process works without a journal for that URI."""
    key = (os.getpid(), server_uri(store_uri))
    if key not in _unusable:
        _unusable.add(key)
        advice = "Set MLFLOW_SPOOL_DIR to a folder on a local disk"
        quiet.note(logging.WARNING, "mlflow-spool keeps nothing: %s. MLflow works as without it. %s", reason, advice)


def _drop(error: Exception) -> None:
    global _dropping
    if not _dropping:
        _dropping = True
        quiet.note(logging.WARNING, "mlflow-spool keeps no traces, and drops them while MLflow is away: %s", error)


def _call(spool: Spool, method: str, endpoint: str, json_body: str | None, response: Any) -> Any:
    try:
        answer = spool.call(method, endpoint, json.loads(json_body) if json_body else None)
    except Refused as refused:
        if isinstance(refused, NotKnown) and _is_within(SEARCHING):
            raise SpoolOffline(f"MLflow at {spool.uri} is away, and {refused.body['message']}") from None
        body = {"error_code": "INTERNAL_ERROR", "message": str(refused), **refused.body}
        raise RestException(body) from None
    except Offline as error:
        raise SpoolOffline(str(error)) from None
    parse_dict(js_dict=answer, message=response)
    return response


def _creds(store_uri: str) -> Any:
    """MLflow's credentials. A login in the address is no part of the host, since MLflow prints that."""
    uri = server_uri(store_uri)
    creds, parts = get_default_host_creds(without_login(uri)), urlsplit(uri)
    if parts.username is not None:
        creds.username, creds.password = unquote(parts.username), unquote(parts.password or "")
    return creds


class SpoolTrackingStore(TrackingRestStore):
    """The tracking store behind `spool+http://`."""

    def __init__(self, store_uri: str) -> None:
        super().__init__(functools.partial(_creds, store_uri))
        self._uri = store_uri
        spool_for(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: float | None = None,
        response_proto: Any = None,
    ) -> Any:
        spool = spool_for(self._uri)
        if spool is not None:
            methods = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
            usual, method = methods[api]
            response = response_proto or api.Response()
            try:
                return _call(spool, method, endpoint or usual, json_body, response)
            except sqlite3.Error as error:
                give_up(self._uri, f"the journal in {spool.journal.folder} is broken ({error})")
        given = {"retry_timeout_seconds": retry_timeout_seconds, "response_proto": response_proto}
        given = {
            name: value for name, value in given.items() if value is not None
        }  # An older MLflow may not know them.
        return super()._call_endpoint(api, json_body, endpoint, **given)

    def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        """Log a trace. While MLflow is away it is dropped, which the log says once."""
        try:
            return super().start_trace(trace_info)
        except SpoolOffline as error:
            _drop(error)
            return traces.dropped(trace_info)

    def log_spans(self, location: str, spans: list[Span], tracking_uri: str | None = None) -> list[Span]:
        """Log spans. While MLflow is away they are dropped. MLflow's own client would ask for minutes, and let the process
        wait for that at its end."""
        spool = spool_for(self._uri)
        if spool is None or not spans:
            logged: list[Span] = super().log_spans(location, spans, tracking_uri)
            return logged
        names = {traces.EXPERIMENT: spool.journal.names.name_of(location) or location}
        content, server = traces.content_of(spans), server_for(self._uri)
        try:
            answer = spool.asking.ask(
                lambda limit: server.post(traces.PATH, content, limit, Content_Type=traces.KIND, **names), again=True
            )
        except (Offline, TransportError) as error:
            _drop(error)
            return spans
        if answer.status in {404, 405, 501}:
            raise NotImplementedError("this MLflow takes no spans")  # Then MLflow's client logs them as a file.
        if answer.status >= 400:
            raise RestException(answer.body)
        return spans

    def get_run(self, run_id: str) -> Run:
        """A run. If somebody else made it, and MLflow is away when a script goes on with it, only its id is known."""
        active, unknown = getattr(fluent, "_active_experiment_id", None), EXPERIMENT_OF + run_id
        try:
            found = super().get_run(run_id)
            if not active or found.info.experiment_id != unknown:
                return found
        except SpoolOffline:
            given = os.environ.get("MLFLOW_RUN_ID") == run_id
            if not (given or _is_within(RESUMING) or is_logging()):
                raise
        if (spool := spool_for(self._uri)) is not None:
            spool.knowledge.adopt(run_id, active or unknown)
        return super().get_run(run_id)

    def get_logged_model(self, model_id: str, *arguments: Any, **named: Any) -> LoggedModel:
        """A logged model. If somebody else made it, and MLflow is away when a script logs to it, only its id is known."""
        try:
            return super().get_logged_model(model_id, *arguments, **named)
        except SpoolOffline:
            spool = spool_for(self._uri)
            if spool is None or not (is_logging() or _is_within(LOGGING)):
                raise
            spool.knowledge.adopt_model(model_id, getattr(fluent, "_active_experiment_id", None) or "0")
            return super().get_logged_model(model_id, *arguments, **named)

    def get_metric_history(self, run_id: str, metric_key: str, *arguments: Any, **named: Any) -> PagedList:
        """The values of a metric. While MLflow is away, a call that logs to a run of others gets those of this machine."""
        try:
            return super().get_metric_history(run_id, metric_key, *arguments, **named)
        except SpoolOffline:
            spool = spool_for(self._uri)
            if spool is None or not is_logging():
                raise
            response = GetMetricHistory.Response()
            parse_dict(js_dict={"metrics": spool.knowledge.logged_here(run_id, metric_key)}, message=response)
            return PagedList([Metric.from_proto(metric) for metric in response.metrics], None)

    def search_logged_models(
        self, experiment_ids: list[str], filter_string: str | None = None, *arguments: Any, **named: Any
    ) -> PagedList:
        """Search for models. While MLflow is away, a call that logs finds those that were made here."""
        try:
            return super().search_logged_models(experiment_ids, filter_string, *arguments, **named)
        except SpoolOffline:
            spool, name = spool_for(self._uri), NAMED.fullmatch(filter_string or "")
            if spool is None or name is None or not _is_within(LOGGING):
                raise
            found = spool.knowledge.models_named(name[1], experiment_ids)
            if not found and is_registering():
                raise  # It would say that there is no such model, which nobody here knows.
            response = SearchLoggedModels.Response()
            parse_dict(js_dict={"models": found}, message=response)
            return PagedList([LoggedModel.from_proto(model) for model in response.models], None)

    def search_experiments(self, *arguments: Any, filter_string: str | None = None, **named: Any) -> PagedList:
        """Search for experiments. While MLflow is away, a search by a name alone finds what this machine knows by it."""
        try:
            return super().search_experiments(*arguments, filter_string=filter_string, **named)
        except SpoolOffline:
            name = NAMED.fullmatch(filter_string or "")
            found = self.get_experiment_by_name(name[1]) if name else None
            if found is None and not (name and _is_within(CREATING)):
                raise
            return PagedList([found] if found else [], None)

    def _mcp_request(self, *arguments: Any, **named: Any) -> Any:
        reach(self._uri)
        return super()._mcp_request(*arguments, **named)

    def upsert_online_scoring_config(self, *arguments: Any, **named: Any) -> Any:
        """As MLflow's own, once MLflow answers."""
        reach(self._uri)
        return super().upsert_online_scoring_config(*arguments, **named)

    def get_online_scoring_configs(self, *arguments: Any, **named: Any) -> Any:
        """As MLflow's own, once MLflow answers."""
        reach(self._uri)
        return super().get_online_scoring_configs(*arguments, **named)


def _is_within(functions: set[tuple[str, str]]) -> bool:
    """Whether one of these functions of other modules is on the stack: why does the caller read?"""
    return any(each in functions for each in _callers())


def is_logging() -> bool:
    """Whether a function of MLflow that logs is on the stack. It goes on also with less than it reads."""
    return any(module.startswith("mlflow.") and name.startswith("log_") for module, name in _callers())


def is_registering() -> bool:
    """Whether MLflow looks for the files of a model that it registers."""
    return _is_within({REGISTERING})


def _callers() -> Iterator[tuple[str, str]]:
    """The modules and names of the functions on the stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield str(frame.f_globals.get("__name__")), frame.f_code.co_name
        frame = frame.f_back


class SpoolRegistryStore(RegistryRestStore):
    """The model registry behind `spool+http://`."""

    def __init__(self, store_uri: str) -> None:
        super().__init__(functools.partial(_creds, store_uri))
        self._uri = store_uri
        spool_for(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None,
        call_all_endpoints: bool = False,
        extra_headers: Any = None,
    ) -> Any:
        spool = spool_for(self._uri)
        if spool is None:
            return super()._call_endpoint(api, json_body, call_all_endpoints, extra_headers)
        if call_all_endpoints:
            endpoint, method = self._get_all_endpoints_from_method(api)[0]
        else:
            endpoint, method = self._get_endpoint_from_method(api)
        try:
            return _call(spool, method, endpoint, json_body, self._get_response_from_method(api))
        except sqlite3.Error as error:
            give_up(self._uri, f"the journal in {spool.journal.folder} is broken ({error})")
            return super()._call_endpoint(api, json_body, call_all_endpoints, extra_headers)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """A registered model. While MLflow is away, a change of those of others goes on without what it reads first."""
        try:
            return super().get_registered_model(name)
        except SpoolOffline:
            if not _is_within(CHANGING):
                raise
            return RegisteredModel(name)

    def get_prompt(self, name: str) -> Any:
        """A prompt; None when there is none. MLflow's own code takes every error for that, also that MLflow is away."""
        found = super().get_prompt(name)
        if found is None:
            reach(self._uri)
        return found

    def _call_webhook_endpoint(self, *arguments: Any, **named: Any) -> Any:
        reach(self._uri)
        return super()._call_webhook_endpoint(*arguments, **named)

    def _await_model_version_creation(self, mv: Any, await_creation_for: float | None) -> None:
        """Training does not wait for a version in the journal: it is registered later."""
        spool = spool_for(self._uri)
        waits = str(mv.status) == "PENDING_REGISTRATION" and spool and spool.knows_version(mv.name, mv.version)
        if not waits:
            super()._await_model_version_creation(mv, await_creation_for)


def workspace_store(store_uri: str) -> Any:
    """MLflow's own store of workspaces. What it does is for administrators, and is not kept."""
    from mlflow.store.workspace.rest_store import RestWorkspaceStore

    return RestWorkspaceStore(functools.partial(_reached, store_uri))


def _reached(store_uri: str) -> Any:
    """MLflow's credentials for a request of its own client. Raises SpoolOffline."""
    reach(store_uri)
    return _creds(store_uri)


def scorer_store(store_uri: str | None) -> Any:
    """MLflow's own store of scorers, which asks our tracking store."""
    from mlflow.genai.scorers.registry import MlflowTrackingStore

    return MlflowTrackingStore(store_uri)
