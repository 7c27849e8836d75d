"""Times in a query."""

import re
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator

# A form encodes a space as `+`, so the offset of `?since=2026-11-30T10:00:00+01:00` arrives with a space before it.
_LOST_PLUS = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.,]+) ([0-9]{2}(?::?[0-9]{2})?)")

_NUMBER = re.compile(r"[-+ ]?[0-9.]+")


def _with_plus(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        # pydantic takes it for seconds or milliseconds, and so 20261130 for a day of 1970.
        raise ValueError("a time is in the form of RFC 3339, such as 2026-01-31T03:00:00Z")
    return _LOST_PLUS.sub(r"\1+\2", value) if isinstance(value, str) and _LOST_PLUS.fullmatch(value) else value


#: A time of a query, RFC 3339. A plus sign that was sent as it is counts as a plus sign.
QueryTime = Annotated[AwareDatetime, BeforeValidator(_with_plus)]
