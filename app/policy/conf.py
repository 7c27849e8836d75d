"""How large the user's part of a DAG run's `conf` may be: one limit for the policy, for requests, and for what is sent."""

import json
from collections.abc import Mapping
from typing import Any, Final

#: Bytes of JSON. Airflow gets at most 16 KB of conf, and the gateway's own part (the group and the alerts) needs room.
CONF_ROOM: Final = 12_000


def conf_bytes(conf: Mapping[str, Any]) -> int:
    """Bytes of `conf` as JSON, as it is sent. A character that is not ASCII takes six."""
    return len(json.dumps(conf))
