"""The alarms that a gateway raises about itself. No route and no switch takes them."""

from collections.abc import Mapping
from typing import Final

#: The `alertname` of an own alarm begins with this name, and the label holds the key of its incident. The receiver
#: `alertmanager` writes both.
NOTICE_NAME: Final = "TriggerGateway"
NOTICE_KEY: Final = "notice"


def is_own_alarm(labels: Mapping[str, str]) -> bool:
    """Whether a gateway, this or another one, raised this alert about itself.

    The alarm can come back by a webhook of the Alertmanager that received it. If a route took it, a failed run would start
    the next one. So nothing is decided on it.
    """
    return NOTICE_KEY in labels and labels.get("alertname", "").startswith(NOTICE_NAME)
