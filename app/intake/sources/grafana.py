"""Grafana's alerting webhook: Alertmanager's alerts in Grafana's own envelope (`version` "1", `orgId`, `title`).

Source: grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier
and `webhookMessage` in github.com/grafana/alerting. The gateway does not use what Grafana adds to an alert (`values` and the
URLs of panel, dashboard and silence). A payload from the operator's own template needs only the fields that are read here.
"""

from functools import partial
from typing import Annotated, Any

from pydantic import ConfigDict, FailFast, Field

from app.decide.alert import Parsed
from app.intake.sources.alertmanager import WebhookAlert, entries_of, to_alert
from app.intake.sources.read import ItemCache, read_items
from app.web.members import Body


class GrafanaWebhook(Body):
    """The notification. `orgId`, `groupKey` and the common labels are not used, because the policy makes the groups."""

    model_config = ConfigDict(extra="ignore")

    alerts: Annotated[list[WebhookAlert], Field(min_length=1), FailFast()]


_cache = ItemCache(partial(to_alert, source="grafana"), lambda alert: alert.fingerprint)


def read(raw: bytes, max_alerts: int) -> Parsed:
    """The alerts of one notification. Raises Unreadable when none can be read."""
    return read_items(raw, _whole, _take_apart, WebhookAlert, _cache.to_alert, max_alerts)


def _whole(raw: bytes) -> list[WebhookAlert]:
    return GrafanaWebhook.model_validate_json(raw).alerts


def _take_apart(body: Any) -> list[Any]:
    return entries_of(body, "Grafana's")
