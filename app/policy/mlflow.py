"""`mlflow:`, where training keeps its metadata and its models."""

from app.policy.values import Auth, Frozen, Url


class Mlflow(Frozen):
    """The MLflow server. Its own basic-auth takes a user and password; a proxy before it may ask for a token."""

    tracking_uri: Url
    auth: Auth | None = None
