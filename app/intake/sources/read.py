"""From bytes to alerts. An alert that cannot be read does not fail the others.

The quick way validates the whole body in one call of pydantic's JSON parser. When that fails, the body is taken apart to
find the alerts at fault. So is a large body: its alerts are counted before one is validated, and no step takes long.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.decide.alert import Alert, Bad, Parsed, Unreadable
from app.intake.sources.pieces import pieces
from app.web.heavy import LARGE, values_of
from app.web.members import Body

ErrorList = list[dict[str, str]]
Item = TypeVar("Item", bound=BaseModel)

_VALUES = 50  # commas and brackets of a large body for each alert that it may have,
_MEMBERS = 100  # for each object in it,
_SPARE = 120_000  # and for lists of numbers that nobody asked for
_ERRORS = 100  # named in a refusal
_SMALL = 4096  # characters of labels and annotations; a larger alert is not kept, to save memory


class ItemCache(Generic[Item]):
    """Monitors repeat their alerts. An item that equals the last item with its key becomes the same Alert object again.

    To compare costs a fifth of a conversion, and equal alerts of a batch are then the same object.
    """

    def __init__(self, convert: Callable[[Item], Alert], key: Callable[[Item], str], most: int = 4096) -> None:
        self._convert = convert
        self._key = key
        self._most = most
        self._known: dict[str, tuple[dict[str, Any], Alert]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def to_alert(self, item: Item) -> Alert:
        """Like `convert`, whose result may depend on the item alone. Raises the errors of `convert`."""
        key, content = self._key(item), item.__dict__
        known = self._known.get(key)
        if known is not None and known[0] == content:
            return known[1]
        alert = self._convert(item)
        if _characters(alert.labels) + _characters(alert.annotations) <= _SMALL:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = (content, alert)
        return alert


def read_items(
    raw: bytes,
    whole: Callable[[bytes], list[Item]],
    take_apart: Callable[[Any], list[Any]],
    item: type[Item],
    to_alert: Callable[[Item], Alert],
    max_alerts: int,
) -> Parsed:
    """Every alert of `raw`. Raises Unreadable when none can be read.

    `whole` reads a good body at once. `take_apart` finds the raw items in the decoded JSON of a bad body.
    """
    if len(raw) > LARGE:
        return read_apart(raw, take_apart, item, to_alert, max_alerts)
    try:
        items = whole(raw)
    except ValidationError:
        return read_apart(raw, take_apart, item, to_alert, max_alerts)
    _limit(len(items), max_alerts)
    try:
        return Parsed([to_alert(i) for i in items], list(range(len(items))), [], _sent(raw, take_apart))
    except ValueError:
        return read_apart(raw, take_apart, item, to_alert, max_alerts)


def read_apart(
    raw: bytes,
    take_apart: Callable[[Any], list[Any]],
    item: type[Item],
    to_alert: Callable[[Item], Alert],
    max_alerts: int,
) -> Parsed:
    """The slow way of `read_items`: item by item, each error with its pointer. Raises Unreadable like it."""
    if len(raw) > LARGE:
        most = min(max(_VALUES * max_alerts, 2 * _SPARE), _MEMBERS * raw.count(b"{") + _SPARE)
        if (values := values_of(raw)) > most:
            raise Unreadable(
                413, f"the body has {values} commas and brackets; alerts of such a number have {most} at most"
            )
    entries = take_apart(decode(raw))
    _limit(len(entries), max_alerts)
    parsed = Parsed([], [], [], _sent(raw, take_apart))
    errors: ErrorList = []
    for index, entry in enumerate(entries):
        try:
            alert = _encodable(to_alert(item.model_validate(_present(item, entry))))
        except ValidationError as error:
            found = pointers(error, f"/{index}")
            message = "; ".join(f"{e['pointer']}: {e['message']}" for e in found[:3])
        except ValueError as error:
            message = storable(str(error))
            found = [{"pointer": f"/{index}", "message": message}]
        else:
            parsed.alerts.append(alert)
            parsed.order.append(index)
            continue
        errors += found[: min(10, _ERRORS - len(errors))]
        parsed.bad.append(Bad(index, _id_of(entry), message, parsed.sent(index)))
    if not parsed.alerts:
        raise Unreadable(422, "none of the alerts in the body can be read", errors)
    return parsed


def _present(item: type[BaseModel], entry: Any) -> Any:
    """The entry without members that are null. The quick way refuses those, so that it need not look for them."""
    return item.present(entry) if issubclass(item, Body) else entry


def decode(raw: bytes) -> Any:
    """The JSON value of `raw`. Raises Unreadable(400) that names the error."""
    try:
        return from_json(raw)
    except ValueError as first:
        # Python's own parser accepts lone surrogates: they must fail one alert, not the whole body.
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise Unreadable(400, f"the body is not JSON: {first}") from first


def pointers(error: ValidationError, prefix: str = "") -> ErrorList:
    """pydantic's errors, each as a JSON pointer with one sentence."""
    return [
        {"pointer": storable(prefix + "".join(f"/{part}" for part in e["loc"])[:200]), "message": storable(e["msg"])}
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _encodable(alert: Alert) -> Alert:
    """`alert` as it is. Raises ValueError for a lone surrogate in an annotation. The quick way refuses them in every string,
    but in Python values pydantic checks only strings that have a constraint."""
    try:
        "".join(text for pair in alert.annotations.items() for text in pair).encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate cannot be stored") from None
    return alert


def storable(text: str) -> str:
    """`text` without what Postgres or UTF-8 cannot hold: NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "?")


def _characters(texts: Mapping[str, str]) -> int:
    return sum(map(len, texts)) + sum(map(len, texts.values()))


def _limit(number: int, most: int) -> None:
    if number > most:
        raise Unreadable(413, f"the body has {number} alerts; GATEWAY_MAX_ALERTS allows {most}")


def _id_of(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    labels, data = entry.get("labels"), entry.get("data")  # `data` and `id` are a CloudEvent's.
    candidates = (
        entry.get("alert_id"),
        labels.get("alertname") if isinstance(labels, dict) else None,
        data.get("alert_id") if isinstance(data, dict) else None,
        entry.get("id"),
    )
    return next((storable(c[:200]) for c in candidates if c and isinstance(c, str)), None)


def _sent(raw: bytes, take_apart: Callable[[Any], list[Any]]) -> Callable[[int], bytes]:
    """The bytes of each entry as they came, by its index. The body is looked through when the first is asked for."""
    found: list[bytes] = []

    def sent(index: int) -> bytes:
        if not found:
            body = decode(raw)
            found.extend(pieces(raw, body, take_apart(body)))
        return found[index]

    return sent
