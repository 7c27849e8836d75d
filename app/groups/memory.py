"""Redis: the recent state of groups and episodes, so that repeats need no locks. Postgres always has the last word.

A value from here only says which work can be skipped, and Postgres compares its version before anything counts. So Redis
may be flushed, stale, failed over, slow or away: decisions then come from Postgres. Used signatures are in
Redis alone: when it forgets them, a signed body can be sent a second time, and its alerts are repeats.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from pydantic_core import from_json, to_json

from app.decide.state import Episode, Group
from app.kit.log import Seldom
from app.kit.metrics import Metrics
from app.kit.redis.client import Away, Redis

log = logging.getLogger(__name__)

# Only a value with an older version is overwritten: the writes of two replicas may overtake each other.
# A value of another writer counts as older than ours.
_WRITE = """
for i, key in ipairs(KEYS) do
  local version = tonumber(ARGV[2 * i])
  local old = redis.pcall('GET', key)
  local digits = type(old) == 'string' and string.match(old, '^(%d+) ')
  if not digits or tonumber(digits) <= version then
    redis.call('SET', key, ARGV[2 * i] .. ' ' .. ARGV[2 * i + 1], 'PX', ARGV[1])
  end
end
return #KEYS
"""

_CLAIM = "return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0"

_GROUP_TIMES = (
    "fired_at",
    "accepted_at",
    "ended_at",
    "reset_at",
    "unconfirmed_at",
    "held_since",
    "wake_at",
    "ineffective_since",
    "released_at",
)
_GROUP_IDS = ("open_trigger", "last_trigger")
_EPISODE_TIMES = ("starts_at", "first_seen_at", "last_seen_at", "firing_since")
_EPISODE_IDS = ("id", "trigger_id", "decision_id", "decided_trigger")
_QUIET = 60.0  # seconds between two log lines about values that cannot be read: every batch may meet one
_REMEMBERED = 4096  # decoded values that this process keeps, by their bytes
_LONGEST = 4096  # bytes of such a value; senders choose how long their labels are


class Memory:
    """Its methods never raise and never take longer than Redis' time limit. Metrics count their failures.

    Callers must not change what `read` returns, because calls share it: decoding the same bytes again would be half the
    work of a repeat.
    """

    def __init__(self, redis: Redis, metrics: Metrics, *, ttl: float) -> None:
        self._redis = redis
        self._metrics = metrics
        self._ttl = round(ttl * 1000)
        self._may_log = Seldom(_QUIET)

    async def read(
        self, keys: Sequence[str], fingerprints: Sequence[str]
    ) -> tuple[dict[str, Group], dict[str, Episode]]:
        """The remembered groups by key and episodes by fingerprint; one MGET. Both are empty when Redis does not answer, or
        knows none of the fingerprints."""
        names = [f"g:{k}" for k in keys] + [f"e:{f}" for f in fingerprints]
        if not names:
            return {}, {}
        try:
            values = await self._redis.read(names)
        except Away as away:
            self._count(away)
            return {}, {}
        split = len(keys)
        try:
            found = ((f, _episode(v)) for f, v in zip(fingerprints, values[split:], strict=True) if v)
            episodes = {f: e for f, e in found if e is not None}
            if fingerprints and not episodes:  # In a storm of new alerts nobody asks for their groups.
                return {}, {}
            groups = {k: _group(v) for k, v in zip(keys, values[:split], strict=True) if v}
        except (ValueError, LookupError, TypeError, AttributeError):
            # A value of another writer or another release counts as none.
            self._metrics.fast_path_failures.labels("content").inc()
            if self._may_log():
                log.warning("Redis holds a value that cannot be read, Postgres decides the batch", exc_info=True)
            return {}, {}
        return groups, episodes

    async def remember(self, groups: Iterable[Group], episodes: Iterable[tuple[Episode, int]]) -> None:
        """Keep committed state for the time `ttl`. Each episode comes with the version of its group."""
        items = [(f"g:{g.key}", (g.version, _pack_group(g))) for g in groups]
        items += [(f"e:{e.fingerprint}", (version, _pack(e) if e.firing else b"null")) for e, version in episodes]
        if not items:
            return
        try:
            await self._redis.run(_WRITE, [self._ttl], items)
        except Away as away:
            self._count(away)

    async def claim(self, proof: str, keep: timedelta) -> bool:
        """Take this proof for the time `keep`. False: somebody has it, or spent it. True when Redis does not answer."""
        try:
            return bool(await self._redis.run(_CLAIM, [round(keep.total_seconds() * 1000)], [(f"s:{proof}", ())]))
        except Away as away:
            self._count(away)
            return True

    async def release(self, proof: str) -> None:
        """Give up a claim: its work failed."""
        try:
            await self._redis.run("return redis.call('DEL', KEYS[1])", [], [(f"s:{proof}", ())])
        except Away as away:
            self._count(away)

    async def spend(self, proof: str, keep: timedelta) -> None:
        """Remember for the time `keep` that this proof was used."""
        try:
            await self._redis.keep(f"s:{proof}", b"1", keep)
        except Away as away:
            self._count(away)

    def _count(self, away: Away) -> None:
        if away.asked:
            self._metrics.redis_failures.labels("memory").inc()


_GROUP_FIELDS = tuple(field.name for field in fields(Group))
_fields_of = attrgetter(*_GROUP_FIELDS)


def _pack_group(group: Group) -> bytes:
    # Not `asdict`, which copies each value deeply: that took 50 us for each group of a batch.
    return to_json(dict(zip(_GROUP_FIELDS, _fields_of(group), strict=True)))


def _to_group(value: bytes) -> Group:
    data = from_json(value.split(b" ", 1)[1])
    for name in _GROUP_TIMES:
        if data[name] is not None:
            data[name] = datetime.fromisoformat(data[name])
    for name in _GROUP_IDS:
        if data[name] is not None:
            data[name] = UUID(data[name])
    return Group(**data)


_EPISODE_TEXTS = (
    "alert_id",
    "fingerprint",
    "source",
    "status",
    "severity",
    "route",
    "group_key",
    "group_labels",
    "spent",
    "dismissed",
    "count",
    "action",
    "reason",
)
_parts_of = attrgetter(*_EPISODE_TIMES, *_EPISODE_IDS, *_EPISODE_TEXTS)


def _pack(episode: Episode) -> bytes:
    return to_json(_parts_of(episode))


def _to_episode(value: bytes) -> Episode | None:
    data = from_json(value.split(b" ", 1)[1])
    if data is None:  # The episode has ended: Postgres has it.
        return None
    times, ids, texts = len(_EPISODE_TIMES), len(_EPISODE_IDS), len(_EPISODE_TEXTS)
    if len(data) != times + ids + texts:
        raise ValueError("a value of another release")
    fields: dict[str, Any] = {n: datetime.fromisoformat(v) for n, v in zip(_EPISODE_TIMES, data, strict=False)}
    fields |= {n: UUID(v) if v else None for n, v in zip(_EPISODE_IDS, data[times:], strict=False)}
    fields |= dict(zip(_EPISODE_TEXTS, data[times + ids :], strict=True))
    return Episode(labels={}, annotations={}, **fields)


_known_group, _known_episode = lru_cache(_REMEMBERED)(_to_group), lru_cache(_REMEMBERED)(_to_episode)


def _group(value: bytes) -> Group:
    return _known_group(value) if len(value) <= _LONGEST else _to_group(value)


def _episode(value: bytes) -> Episode | None:
    return _known_episode(value) if len(value) <= _LONGEST else _to_episode(value)
