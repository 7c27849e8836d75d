"""The books of one pass: what it has read, what it changed and what must be written. Data, no decisions. Pure.

A pass is one batch of alerts, one wake or one request, by one policy at one `now`. The store reads rows into the books
and writes what they hold as changed. `app.decide.ledger` decides in between.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from app.decide.rules import Pause
from app.decide.state import Confirmation, Decision, DecisionRow, Episode, Group, Reason, TriggerChange
from app.policy.schema import Policy

#: The most alerts of a group that are read to decide it as a whole: those with the newest notifications. A sender that
#: makes a new alert_id for every event leaves any number of open alerts behind.
MATES: Final = 1000

#: Reasons of a decision to fire or to hold a group, or what stands for it in shadow mode.
_BEGINNINGS: Final = (Reason.NEW_ALERT, Reason.STILL_FIRING, Reason.SHADOW, Reason.DEBOUNCING, Reason.JOINED)


@dataclass(frozen=True, slots=True)
class Heard:
    """A notification of an alert that its row forgets. `at` is ours, `resolved` the status."""

    alert: UUID
    at: datetime
    resolved: bool


@dataclass
class Books:
    """`new_id` makes UUIDv7s, so that rows sort by the order in which they were made."""

    policy: Policy
    now: datetime
    new_id: Callable[[], UUID]

    # What was read.
    groups: dict[str, Group] = field(default_factory=dict, init=False)  # by key
    latest: dict[str, Episode] = field(default_factory=dict, init=False)  # the newest episode, by fingerprint
    mates: dict[str, dict[UUID, Episode]] = field(default_factory=dict, init=False)  # of a group: firing, or may reopen
    fires: dict[str, list[datetime]] = field(default_factory=dict, init=False)  # of routes with a limit, newest first
    pauses: dict[str, Pause] = field(default_factory=dict, init=False)  # by route
    confirmations: dict[str, Confirmation] = field(default_factory=dict, init=False)  # of Prometheus, by group

    # What must be written.
    created: dict[UUID, Episode] = field(default_factory=dict, init=False)
    changed: dict[UUID, Episode] = field(default_factory=dict, init=False)
    changed_groups: set[str] = field(default_factory=set, init=False)
    triggers: dict[UUID, TriggerChange] = field(default_factory=dict, init=False)
    decisions: list[DecisionRow] = field(default_factory=list, init=False)
    forgotten: list[Heard] = field(default_factory=list, init=False)
    records: bool = field(default=False, init=False)  # whether `forgotten` is written: GATEWAY_RECORD_REPEATS
    ended_decisions: list[tuple[UUID, int, datetime]] = field(default_factory=list, init=False)  # id, count, last time

    def take_group(self, group: Group) -> None:
        """Read a group in."""
        self.groups[group.key] = group

    def take_episode(self, episode: Episode) -> None:
        """Read an episode in. If the books have it already, that object stays: there is one object per id."""
        known = self.mates.get(episode.group_key or "", {}).get(episode.id, episode)
        last = self.latest.get(episode.fingerprint)
        kept = last if last is not None and last.id == episode.id else known
        self.latest[kept.fingerprint] = kept
        self.keep_mate(kept)

    def begin(self, episode: Episode) -> None:
        """A new episode is the newest of its fingerprint."""
        self.created[episode.id] = self.latest[episode.fingerprint] = episode

    def keep_mate(self, episode: Episode) -> None:
        """Count an episode among those of its group while it fires or may reopen."""
        if episode.group_key is not None and (episode.firing or episode.late_at is not None):
            self.mates.setdefault(episode.group_key, {})[episode.id] = episode

    def mates_of(self, key: str) -> list[Episode]:
        """The episodes of a group that fire or may reopen."""
        return list(self.mates.get(key, {}).values())

    def touch(self, episode: Episode) -> None:
        """The episode changed: its row must be written."""
        if episode.id not in self.created:
            self.changed[episode.id] = episode

    def forget(self, episode: Episode, seen: datetime, resolved: datetime | None, *, moved: bool) -> None:
        """Before this notification the newest was `seen`, and the newest resolved was `resolved`. Keep what the row no
        longer has: the last notification of each minute, each that `moved` the episode, and each that fired or held its
        group. `app.groups.heard` has the same rule in SQL, without the last part: a decision to fire or to hold is never
        repeated, so that a repeat which only counts follows no such notification."""
        if resolved is not None and resolved != episode.resolved_at:
            self.forgotten.append(Heard(episode.id, resolved, resolved=True))
        if seen in (resolved, episode.last_seen_at, episode.first_seen_at):
            return
        began = episode.decision_count == 1 and episode.reason in _BEGINNINGS
        if moved or began or seen == episode.firing_since or seen.timestamp() // 60 != self.now.timestamp() // 60:
            self.forgotten.append(Heard(episode.id, seen, resolved=False))

    def forget_end(self, episode: Episode) -> None:
        """The episode fires again without a notification: its row no longer has the newest resolved."""
        if episode.resolved_at is not None:
            self.forgotten.append(Heard(episode.id, episode.resolved_at, resolved=True))

    def mark(self, group: Group) -> None:
        """The group changed: its row must be written."""
        self.changed_groups.add(group.key)

    def wake_by(self, group: Group, at: datetime | None) -> None:
        """Wake the group at `at` or earlier. A time that is past needs no wake: this pass decides the group."""
        if at is None or at <= self.now:
            return
        if group.wake_at is None or at < group.wake_at:
            group.wake_at = at
            self.mark(group)

    def record(self, episode: Episode, decision: Decision, times: int, previously_seen: datetime) -> None:
        """Count an unchanged decision; write a row for a changed one."""
        self.touch(episode)
        content = (str(decision.action), str(decision.reason), decision.trigger_id)
        if content == (episode.action, episode.reason, episode.decided_trigger) and episode.decision_id is not None:
            episode.decision_count += times
            return
        if episode.decision_id is not None:
            self.ended_decisions.append((episode.decision_id, episode.decision_count, previously_seen))
        row = self.write(episode.id, episode.route, episode.group_key, decision)
        episode.decision_id, episode.decision_count = row.id, times
        episode.action, episode.reason, episode.decided_trigger = content

    def write(self, alert: UUID | None, route: str | None, key: str | None, decision: Decision) -> DecisionRow:
        """Write a row for a decision. A request has no alert."""
        row = DecisionRow(
            self.new_id(),
            alert,
            decision.trigger_id,
            route,
            key,
            str(decision.action),
            str(decision.reason),
            decision.until,
            decision.detail,
            self.now,
        )
        self.decisions.append(row)
        return row
