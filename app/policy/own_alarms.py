"""The alarms about the gateway itself. No route and no switch takes them."""

from collections.abc import Mapping
from typing import Final

#: The `alertname` of an own alarm begins with this name, and the label holds the key of its incident. The receiver
#: `alertmanager` writes both.
NOTICE_NAME: Final = "TriggerGateway"
NOTICE_KEY: Final = "notice"
#: The label `notice` of the alerts in examples/rules/gateway.yml, which Prometheus raises about a gateway.
NOTICE_OF_RULES: Final = "trigger-gateway"


def is_own_alarm(labels: Mapping[str, str]) -> bool:
    """Whether this alert is about a gateway, this or another one: the gateway raised it itself, or one of our rules did.

    The alarm can come back by a webhook of the Alertmanager that received it. If a route took it, a failed run would start
    the next one. So nothing is decided on it.
    """
    notice = labels.get(NOTICE_KEY)
    return notice is not None and (notice == NOTICE_OF_RULES or labels.get("alertname", "").startswith(NOTICE_NAME))
