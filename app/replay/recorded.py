"""What a gateway recorded (`GET /api/v1/history`), as lines in the order of time (app.replay.lines). Pure.

The notifications that arrived in one millisecond are one line: they were decided together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import merge
from typing import Any, Final

from pydantic_core import to_json

Record = Mapping[str, Any]
_MS: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INDEX_BITS: Final = 32
_ALERT: Final = ("alert_id", "fingerprint", "source", "severity", "starts_at", "labels")

#: What a person asked for, by the action of the audit: the source of the line.
_REQUESTS: Final = {
    "trigger": "gateway.request",
    "force": "gateway.request",
    "reset": "gateway.reset",
    "pause": "gateway.pause",
    "resume": "gateway.lift",
    "redrive": "gateway.redrive",
    "cancel": "gateway.cancel",
}


@dataclass(frozen=True, slots=True)
class _Alert:
    """An alert as JSON: while it fires, when an end of it came that was not the last, and when its last end came."""

    firing: bytes
    ended_before: bytes
    ended: bytes
    resolved_ms: int | None
    routed_ms: int | None = None  # from then on it is `routed`
    routed: "_Alert | None" = None


def lines_of(
    records: Iterable[Record], since: datetime | None = None, until: datetime | None = None
) -> Iterator[bytes]:
    """The lines of a history, without line ends. Notifications outside of `since` and `until` are left out."""
    others: list[tuple[int, int, bytes]] = []
    policies: list[tuple[int, Record]] = []
    alerts: list[_Alert] = []
    places: dict[str, int] = {}
    moments: set[int] = set()  # milliseconds, place of the alert, and whether it ended
    for record in records:
        match record["kind"]:
            case "policy":
                policies.append((_ms(record["at"]), record))
            case "alert":
                places[record["id"]] = len(alerts)
                moments |= {ms << _INDEX_BITS | len(alerts) << 1 | ended for ms, ended in _of_the_row(record)}
                alerts.append(_alert(record))
            case "heard":
                place, begin = places.get(record["alert"]), _ms(record["since"])
                if place is not None:  # Otherwise it began while the history was read.
                    moments |= {begin + (code >> 1) << _INDEX_BITS | place << 1 | code & 1 for code in record["times"]}
            case "ineffective":
                others += _of_ineffective(record)
            case _:
                others += [(_ms(record["at"]), 1, line) for line in _of_people_and_runs(record)]
    others += _of_policies(policies)
    others.sort()
    window = (_ms_of(since) if since else 0, _ms_of(until) if until else 1 << 62)
    notifications = ((ms, 2, line) for ms, line in _notifications(sorted(moments), alerts, window))
    return (line for _, _, line in merge(others, notifications))


def _of_the_row(alert: Record) -> Iterator[tuple[int, int]]:
    """The notifications that the row of an alert keeps, each with 1 for a resolved."""
    resolved = _ms(alert["resolved_at"]) if alert["resolved_at"] else None
    for name in ("first_seen_at", "last_seen_at"):
        if (ms := _ms(alert[name])) != resolved:
            yield ms, 0
    if resolved is not None:
        yield resolved, 1


def _alert(record: Record) -> _Alert:
    """An end that was not the last one is taken to end the alert where it began: the alert then fires on. The labels are
    those with which it began. If no route took these, the newest severity counts from the moment at which one did."""
    known = {name: record[name] for name in _ALERT}
    routed = record.get("routed_at")
    if routed and _ms(routed) > _ms(record["first_seen_at"]):
        changed = {**record, "labels": {**record["labels"], "severity": record["severity"]}, "routed_at": None}
        return replace(_fragments(record, known), routed_ms=_ms(routed), routed=_alert(changed))
    return _fragments(record, known)


def _fragments(record: Record, known: dict[str, Any]) -> _Alert:
    ended = known | {"status": "resolved"}
    return _Alert(
        to_json(known | {"status": "firing"}),
        to_json(ended | {"ends_at": record["starts_at"]}),
        to_json(ended | {"ends_at": record["ends_at"] or record["starts_at"]}),
        _ms(record["resolved_at"]) if record["resolved_at"] else None,
    )


def _notifications(moments: list[int], alerts: list[_Alert], window: tuple[int, int]) -> Iterator[tuple[int, bytes]]:
    """One line for each millisecond. `moments` are sorted; of two entries of one alert the resolved, the second, counts."""
    now, batch = -1, dict[int, bytes]()
    for moment in moments:
        ms, place, ended = moment >> _INDEX_BITS, (moment >> 1) & ((1 << (_INDEX_BITS - 1)) - 1), moment & 1
        if not window[0] <= ms < window[1]:
            continue
        if ms != now and batch:
            yield now, _line(now, "gateway.alerts", b'{"alerts":[' + b",".join(batch.values()) + b"]}")
            batch = {}
        now, alert = ms, alerts[place]
        if alert.routed is not None and alert.routed_ms is not None and ms >= alert.routed_ms:
            alert = alert.routed
        batch[place] = alert.firing if not ended else alert.ended if ms == alert.resolved_ms else alert.ended_before
    if batch:
        yield now, _line(now, "gateway.alerts", b'{"alerts":[' + b",".join(batch.values()) + b"]}")


def _of_policies(policies: list[tuple[int, Record]]) -> Iterator[tuple[int, int, bytes]]:
    """A line for each change. Replicas take a new policy one after the other: the first one counts."""
    before = None
    for ms, record in sorted(policies, key=lambda each: (each[0], each[1]["id"])):
        if record["hash"] != before:
            before = record["hash"]
            yield ms, 0, _line(ms, "gateway.policy", to_json({"hash": before, "text": record["text"]}))


def _of_ineffective(record: Record) -> Iterator[tuple[int, int, bytes]]:
    """A line for the moment from which retraining did not help a group, and one for its end."""
    for at, holds in ((record["at"], True), (record["until"], False)):
        if at is not None:
            body = {"route": record["route"], "group": record["group"], "holds": holds}
            yield _ms(at), 1, _line(_ms(at), "gateway.ineffective", to_json(body))


def _of_people_and_runs(record: Record) -> Iterator[bytes]:
    kind, ms = record["kind"], _ms(record["at"])
    if kind == "outage":
        yield _line(ms, "gateway.outage", to_json({"until": record["until"]}))
    elif kind == "run":
        left_out = ("kind", "id", "at")
        yield _line(ms, "gateway.run", to_json({k: v for k, v in record.items() if k not in left_out}))
    elif kind == "confirm":
        names = ("route", "group", "confirmed")
        yield _line(ms, "gateway.confirm", to_json({name: record[name] for name in names}))
    elif kind == "request" and (source := _REQUESTS.get(record["action"])) is not None:
        yield _line(ms, source, to_json(_request(record)))


def _request(record: Record) -> dict[str, Any]:
    detail, body = record["detail"], {"route": record["route"], "by": record["caller"]}
    match record["action"]:
        case "trigger" | "force":
            asked = {"requested_by": detail.get("requested_by") or "", "reason": detail.get("reason") or ""}
            return body | asked | {"group": record["group"] or {}, "force": record["action"] == "force"}
        case "pause":
            return body | {"until": detail.get("until"), "reason": detail.get("reason") or ""}
        case "resume":
            return body
    return body | {"group": record["group"] or {}}


def _line(ms: int, source: str, body: bytes) -> bytes:
    at = (_EPOCH + ms * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return b'{"at":"' + at.encode() + b'","source":"' + source.encode() + b'","body":' + body + b"}"


def _ms(time: str | datetime) -> int:
    return _ms_of(time if isinstance(time, datetime) else datetime.fromisoformat(time))


def _ms_of(time: datetime) -> int:
    return (time - _EPOCH) // _MS
