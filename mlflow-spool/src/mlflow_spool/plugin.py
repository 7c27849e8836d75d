"""The functions of MLflow's entry points. MLflow imports this module during its own import, so that MLflow must
not be imported here before a call.

The exit handler is registered here, before MLflow's. The last that is registered runs first: MLflow ends its run, and then
the spool delivers the rest.
"""

import atexit
from typing import Any

from mlflow_spool import family
from mlflow_spool.settings import Settings, read_settings
from mlflow_spool.spool import adopt_children, finish_all


@atexit.register
def _finish() -> None:
    settings = read_settings()
    adopt_children(settings, _connect)
    finish_all(settings.exit_budget)


def _connect(uri: str, place: Settings) -> Any:
    from mlflow_spool.transport import connected

    return connected(uri, place)


family.at_end_of_child(_finish)


def tracking_store(store_uri: str | None = None, artifact_uri: str | None = None) -> Any:  # noqa: ARG001 (MLflow's)
    """The tracking store of a `spool+http://` or `spool+https://` URI."""
    from mlflow_spool.store import SpoolTrackingStore

    return SpoolTrackingStore(store_uri or "")


def registry_store(store_uri: str | None = None, tracking_uri: str | None = None) -> Any:  # noqa: ARG001 (MLflow's)
    """The model registry of a `spool+http://` or `spool+https://` URI."""
    from mlflow_spool.store import SpoolRegistryStore

    return SpoolRegistryStore(store_uri or "")


def artifacts(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository of an `mlflow-artifacts:` URI (MLflow's own wants an http tracking URI) or `spool-artifacts:` URI."""
    from mlflow_spool.artifacts import repository

    return repository(artifact_uri, tracking_uri, registry_uri)


def workspaces(workspace_uri: str | None = None) -> Any:
    """The workspaces of the server behind a `spool+http://` or `spool+https://` URI."""
    from mlflow_spool.store import workspace_store

    return workspace_store(workspace_uri or "")


def scorers(tracking_uri: str | None = None) -> Any:
    """The scorers of the server behind a `spool+http://` or `spool+https://` URI."""
    from mlflow_spool.store import scorer_store

    return scorer_store(tracking_uri)
