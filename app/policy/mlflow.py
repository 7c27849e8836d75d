"""`mlflow:`, where training keeps its metadata and its models."""

from typing import ClassVar

from app.policy.values import ServerWithLogin, Url


class Mlflow(ServerWithLogin):
    """The MLflow server where training keeps its metadata and its models."""

    _later: ClassVar[frozenset[str]] = frozenset({"headers", "ca_file"})

    tracking_uri: Url
    """The address of the tracking server."""
