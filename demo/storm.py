"""The storm: bodies recorded from a real Alertmanager 0.25, sent with the times of the demo. Pure, except for reading them.

It is a bad night, as the receiver sees it. Two models get worse and stay so. A pair of Alertmanagers sends everything
twice, and their two Prometheus differ by seconds in the beginning. Every notification is repeated. A third model flaps.
Later both models recover. The first drops again within the cooldown, the second stays good.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any, Final

DROPPING: Final = ("churn", "fraud")  # as recorded; each must be retrained exactly once
FLAPPING: Final = "recommender"  # recovers within the debounce, so it must not be retrained
REPLICAS: Final = ("a", "b")
REPLICA_LAG: Final = 0.3  # seconds by which the second Alertmanager sends later
REPLICA_SKEW: Final = timedelta(seconds=3)  # by which the second Prometheus sees the beginning later
REPEATS: Final = 24  # rounds of repeated notifications in the first wave
LATER_REPEATS: Final = 20
FIRST_WAVE: Final = 4.0  # seconds


@dataclass(frozen=True, slots=True)
class Post:
    """One notification: sent by `replica`, `after` seconds from the beginning of its wave."""

    after: float
    replica: str
    body: dict[str, Any]

    @property
    def alerts(self) -> int:
        return len(self.body["alerts"])


def recorded(name: str) -> dict[str, Any]:
    """The recorded body `name`, exactly as Alertmanager sent it."""
    body: dict[str, Any] = json.loads((files("demo") / "data" / f"{name}.json").read_text())
    return body


def replayed(name: str, began: datetime, ended: datetime | None = None, model: str | None = None) -> dict[str, Any]:
    """The recorded body `name` with other times and, if `model` is given, for that model.

    began: startsAt of its alerts; ended: endsAt of its resolved alerts.
    """
    text = json.dumps(recorded(name))
    body: dict[str, Any] = json.loads(text if model is None else text.replace("fraud", model))
    for alert in body["alerts"]:
        alert["startsAt"] = _rfc3339(began)
        if alert["status"] == "resolved" and ended is not None:
            alert["endsAt"] = _rfc3339(ended)
        alert["fingerprint"] = fingerprint(alert["labels"])
    return body


def fingerprint(labels: dict[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: FNV-1a, 64 bits, over the sorted names and values, each closed by 0xFF
    (prometheus/common, model.LabelSet.Fingerprint)."""
    value = 0xCBF29CE484222325
    for name, text in sorted(labels.items()):
        for byte in name.encode() + b"\xff" + text.encode() + b"\xff":
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def first_wave(began: datetime, now: datetime) -> list[Post]:
    """Both models drop (since `began`), and their alerts are repeated many times. The third fires and recovers, twice."""
    return _in_order([post for replica in REPLICAS for post in _drop(replica, began, now)])


def second_wave(began: datetime, now: datetime) -> list[Post]:
    """The same episodes once more, then both models recover. The first of them drops a second time."""
    return _in_order([post for replica in REPLICAS for post in _aftermath(replica, began, now)])


def _drop(replica: str, began: datetime, now: datetime) -> list[Post]:
    lag, since = _late(replica, began)
    bodies = [
        replayed("firing_group_of_two", since),
        replayed("repeat_firing", since),
        replayed("firing_single", since),
        replayed("firing_single", since, model="churn"),
    ]
    count = REPEATS * len(bodies)
    repeats = [Post(lag + n * FIRST_WAVE / count, replica, bodies[n % len(bodies)]) for n in range(count)]
    return repeats + _flap(replica, lag, now, 0.5) + _flap(replica, lag, now, 2.2)


def _flap(replica: str, lag: float, now: datetime, at: float) -> list[Post]:
    """Fires `at` seconds into the wave, is repeated, and recovers after one second."""
    began, ended = now + timedelta(seconds=at), now + timedelta(seconds=at + 0.9)
    firing = replayed("firing_single", began, model=FLAPPING)
    resolved = replayed("resolved_single", began, ended, model=FLAPPING)
    return [Post(lag + at + wait, replica, body) for wait, body in ((0.0, firing), (0.4, firing), (1.0, resolved))]


def _aftermath(replica: str, began: datetime, now: datetime) -> list[Post]:
    lag, since = _late(replica, began)
    recovered, again = now + timedelta(seconds=1), now + timedelta(seconds=1.5)
    still = replayed("firing_group_of_two", since)
    second = replayed("firing_single", again, model=DROPPING[0])
    return [
        *(Post(lag + number / LATER_REPEATS, replica, still) for number in range(LATER_REPEATS)),
        Post(lag + 1.05, replica, replayed("mixed_firing_and_resolved", since, recovered)),
        Post(lag + 1.1, replica, replayed("group_resolved", since, recovered)),
        *(Post(lag + 1.6 + number / LATER_REPEATS, replica, second) for number in range(LATER_REPEATS)),
    ]


def _late(replica: str, began: datetime) -> tuple[float, datetime]:
    """By how many seconds a replica sends late, and since when it takes the models for bad."""
    number = REPLICAS.index(replica)
    return number * REPLICA_LAG, began + number * REPLICA_SKEW


def _in_order(posts: list[Post]) -> list[Post]:
    return sorted(posts, key=lambda post: post.after)


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
