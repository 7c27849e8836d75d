"""`mlflow:`, where training keeps its metadata and its models."""

from typing import Annotated, ClassVar

from pydantic import Field

from app.policy.values import Auth, ServerWithLogin, Url


class Mlflow(ServerWithLogin):
    """The MLflow server where training keeps its metadata and its models."""

    _later: ClassVar[frozenset[str]] = frozenset({"headers", "ca_file", "logins"})

    tracking_uri: Url
    """The address of the tracking server."""
    logins: Annotated[tuple[Auth, ...], Field(strict=False)] = ()
    """More logins, for records that mlflow-spool hands over. What somebody has logged with a login goes to MLflow with the
    login of that name: the `username`, or the subject of a token that is a JWT. It waits while the policy has none. `auth`
    counts too, and is for what has no name."""
