"""`mlflow:`, where training keeps its metadata and its models."""

from app.policy.values import Auth, Frozen, Url


class Mlflow(Frozen):
    """The MLflow server where training keeps its metadata and its models."""

    tracking_uri: Url
    """The address of the tracking server."""
    auth: Auth | None = None
    """How the gateway logs in. Give `username` and `password`, or `token`, or `token_file`."""
