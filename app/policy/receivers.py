"""`receivers:`, who is told, and `notify:`, of what."""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, model_validator

from app.policy.values import Frozen, Name, Secret, SigningSecret, Text, Url, known_secret, read_address

# Who knows the address of a webhook may post to it; often it is the only secret there is.
SecretUrl = Annotated[Secret, known_secret(lambda value: read_address(value, query=True))]


class Pagerduty(Frozen):
    """A service of PagerDuty, by the integration key of its Events API v2. In the EU: https://events.eu.pagerduty.com."""

    routing_key: Secret
    url: Url = "https://events.pagerduty.com"


class Opsgenie(Frozen):
    """Opsgenie (in the EU: https://api.eu.opsgenie.com), or Jira Service Management
    (https://api.atlassian.com/jsm/ops/integration), by the key of an API integration."""

    api_key: Secret
    url: Url = "https://api.opsgenie.com"


class Slack(Frozen):
    """A channel of Slack, by its incoming webhook."""

    url: SecretUrl


class Webhook(Frozen):
    """Any server that takes POST, signed as Standard Webhooks says."""

    url: SecretUrl
    secret: SigningSecret


class AlertmanagerReceiver(Frozen):
    """An Alertmanager, which then tells whom its own configuration says."""

    url: Url


KINDS: Final[Mapping[str, type[Frozen]]] = {
    "pagerduty": Pagerduty,
    "opsgenie": Opsgenie,
    "slack": Slack,
    "webhook": Webhook,
    "alertmanager": AlertmanagerReceiver,
}


class Receiver(Frozen):
    """Somebody who is told. Exactly one kind is given."""

    name: Name
    pagerduty: Pagerduty | None = None
    opsgenie: Opsgenie | None = None
    slack: Slack | None = None
    webhook: Webhook | None = None
    alertmanager: AlertmanagerReceiver | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"must have exactly one of {', '.join(KINDS)}")
        return self

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def address(self) -> str:
        """Its `url`; may hold a secret."""
        url: str | SecretStr = getattr(self, self.kind).url
        return url if isinstance(url, str) else url.get_secret_value()

    def secrets(self) -> tuple[str, ...]:
        """What must not be repeated to anybody."""
        values = getattr(self, self.kind).__dict__.values()
        return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))


Told = Annotated[tuple[Text, ...], Field(strict=False)]


class RouteNotify(Frozen):
    """Receivers by event, of what happens to a trigger. An empty list tells nobody; None is left to the level above."""

    trigger_dead: Told | None = None
    trigger_waiting: Told | None = None
    trigger_lost: Told | None = None
    run_failed: Told | None = None


class Notify(RouteNotify):
    """Receivers by event, of everything."""

    promotion_blocked: Told | None = None
    orphan: Told | None = None


EVENTS: Final = tuple(Notify.model_fields)
