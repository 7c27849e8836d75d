"""`receivers:`, where notices go, and `notify:`, which receiver gets which event."""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, model_validator

from app.policy.values import (
    Frozen,
    Name,
    Secret,
    Server,
    ServerWithLogin,
    SigningSecret,
    Text,
    Url,
    known_secret,
    read_address,
)

# Anybody who knows the address of a webhook may post to it. Often the address is the only secret.
SecretUrl = Annotated[Secret, known_secret(lambda value: read_address(value, query=True))]


class Pagerduty(Frozen):
    """A service of PagerDuty."""

    routing_key: Secret
    """The integration key of the Events API v2."""
    url: Url = "https://events.pagerduty.com"
    """In the EU it is `https://events.eu.pagerduty.com`."""


class Opsgenie(Frozen):
    """Opsgenie, or Jira Service Management."""

    api_key: Secret
    """The key of an API integration."""
    url: Url = "https://api.opsgenie.com"
    """In the EU it is `https://api.eu.opsgenie.com`. For Jira Service Management it is
    `https://api.atlassian.com/jsm/ops/integration`."""


class Slack(Server):
    """A channel of Slack."""

    url: SecretUrl
    """The address of an incoming webhook. It is a secret."""


class Webhook(ServerWithLogin):
    """Any server that takes POST."""

    url: SecretUrl
    """Where the gateway posts. It may be a secret."""
    secret: SigningSecret
    """Signs each request as Standard Webhooks says: `whsec_...`."""


class AlertmanagerReceiver(ServerWithLogin):
    """An Alertmanager, which sends the alert on as its own configuration says."""

    url: Url
    """The address of the Alertmanager."""


KINDS: Final[Mapping[str, type[Frozen]]] = {
    "pagerduty": Pagerduty,
    "opsgenie": Opsgenie,
    "slack": Slack,
    "webhook": Webhook,
    "alertmanager": AlertmanagerReceiver,
}


class Receiver(Frozen):
    """Where notices go. Each receiver has exactly one kind."""

    name: Name
    """Lower-case letters, digits, `_` and `-`, at most 63."""
    pagerduty: Pagerduty | None = None
    """A service of PagerDuty."""
    opsgenie: Opsgenie | None = None
    """Opsgenie, or Jira Service Management."""
    slack: Slack | None = None
    """A channel of Slack."""
    webhook: Webhook | None = None
    """Any server that takes POST."""
    alertmanager: AlertmanagerReceiver | None = None
    """An Alertmanager, which sends the alert on as its own configuration says."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"must have exactly one of {', '.join(KINDS)}")
        return self

    @property
    def kind(self) -> str:
        """The kind that the policy gives, such as `pagerduty`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def address(self) -> str:
        """Its `url`. It may hold a secret."""
        url: str | SecretStr = getattr(self, self.kind).url
        return url if isinstance(url, str) else url.get_secret_value()

    @property
    def server(self) -> Server:
        """What a request to it needs beside its own keys."""
        entry = getattr(self, self.kind)
        return entry if isinstance(entry, Server) else Server()

    def secrets(self) -> tuple[str, ...]:
        """The texts that no answer, log line or error may repeat. Those of `server` are known by their answer."""
        values = getattr(self, self.kind).__dict__.values()
        return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))


ReceiverNames = Annotated[tuple[Text, ...], Field(strict=False)]


class RouteNotify(Frozen):
    """Receivers by event, for what happens to a trigger. `[]` sends nothing. None leaves it to the level above."""

    trigger_dead: ReceiverNames | None = None
    """Airflow never took a trigger. It will not start by itself."""
    trigger_waiting: ReceiverNames | None = None
    """Airflow has not taken a trigger for `GATEWAY_WAITING_NOTICE`, or its DAG run could not be read for so long."""
    trigger_lost: ReceiverNames | None = None
    """A DAG run is still open after its `run_timeout`."""
    run_failed: ReceiverNames | None = None
    """A DAG run failed, or was deleted in Airflow."""
    no_effect: ReceiverNames | None = None
    """Several retrains of a group in a row did not help (`on_no_effect`)."""
    run_succeeded: ReceiverNames | None = None
    """A DAG run ended well. Without a list nobody gets it."""
    promoted: ReceiverNames | None = None
    """The gate gave an alias to a model version. Without a list nobody gets it."""


class Notify(RouteNotify):
    """Which receivers get a notice of which event. An event without a list goes to every receiver, but good news
    (`run_succeeded`, `promoted`) to none. `[]` sends nothing."""

    promotion_blocked: ReceiverNames | None = None
    """The gate refused a model version."""
    probation_failed: ReceiverNames | None = None
    """An alert spoke against a version that is on probation: its alias was given back, or a person must decide."""
    orphan: ReceiverNames | None = None
    """A run, a version, an alias or a trigger lacks its lineage."""


#: The event of retrains that do not help. A route may name its receivers in `on_no_effect`.
NO_EFFECT: Final = "no_effect"
#: The event of a version that an alert spoke against.
PROBATION_FAILED: Final = "probation_failed"
#: Good news. Only receivers that a list names get it.
RUN_SUCCEEDED: Final = "run_succeeded"
PROMOTED: Final = "promoted"
NEWS: Final = frozenset({RUN_SUCCEEDED, PROMOTED})
EVENTS: Final = tuple(Notify.model_fields)
