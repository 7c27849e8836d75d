"""What MLflow's entry points name. Imported while MLflow itself is being imported, so it imports MLflow only when called.

The end of the process is noted here, before MLflow notes its own: exit handlers run last noted first, so MLflow ends its
run before the spool delivers the rest.
"""

import atexit
from typing import Any

from mlflow_spool.settings import PREFIX, read_settings, server_uri
from mlflow_spool.spool import finish_all


@atexit.register
def _finish() -> None:
    finish_all(read_settings().exit_budget)


def tracking_store(store_uri: str | None = None, artifact_uri: str | None = None) -> Any:  # noqa: ARG001 (MLflow's)
    """The tracking store of a `spool+http://` or `spool+https://` URI."""
    from mlflow_spool.store import SpoolTrackingStore

    return SpoolTrackingStore(store_uri or "")


def registry_store(store_uri: str | None = None, tracking_uri: str | None = None) -> Any:  # noqa: ARG001 (MLflow's)
    """The model registry of a `spool+http://` or `spool+https://` URI."""
    from mlflow_spool.store import SpoolRegistryStore

    return SpoolRegistryStore(store_uri or "")


def proxied_artifacts(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository of an `mlflow-artifacts:` URI; MLflow's own accepts only an http(s) tracking URI."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from mlflow.tracking import get_tracking_uri

    where = tracking_uri or get_tracking_uri()
    plain = server_uri(where) if where.startswith(PREFIX) else where
    return MlflowArtifactsRepository(artifact_uri, tracking_uri=plain, registry_uri=registry_uri)
