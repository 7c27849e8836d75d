"""What one batch or one wake has read and changed, in memory: the rows, and what of them must be written. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from app.decide.muting import Mute, Pause
from app.decide.state import Confirmation, Decision, DecisionRow, Episode, Group, NewTrigger
from app.policy.schema import Policy


@dataclass
class Books:
    """`groups` by key, `latest` the newest episode by fingerprint, `mates` the episodes of a group that still fire or
    may reopen. `new_id` makes UUIDv7s, so that rows sort by their making."""

    policy: Policy
    now: datetime
    reorder: timedelta
    new_id: Callable[[], UUID]
    groups: dict[str, Group] = field(default_factory=dict)
    latest: dict[str, Episode] = field(default_factory=dict)
    mates: dict[str, dict[UUID, Episode]] = field(default_factory=dict)
    fires: dict[str, list[datetime]] = field(default_factory=dict)  # of routes that have a limit, the newest first
    pauses: dict[str, Pause] = field(default_factory=dict)  # by route
    answers: dict[str, Confirmation] = field(default_factory=dict)  # of Prometheus, by group
    mutes: dict[str, Mute | None] = field(default_factory=dict)  # by route, as they were asked for

    created: dict[UUID, Episode] = field(default_factory=dict)
    changed: dict[UUID, Episode] = field(default_factory=dict)
    changed_groups: set[str] = field(default_factory=set)
    triggers: dict[UUID, NewTrigger] = field(default_factory=dict)
    decisions: list[DecisionRow] = field(default_factory=list)
    ended_decisions: list[tuple[UUID, int, datetime]] = field(default_factory=list)  # id, count, last time

    # -- reading in ---------------------------------------------------------------------------------------------------

    def take_group(self, group: Group) -> None:
        self.groups[group.key] = group

    def take_episode(self, episode: Episode, *, newest: bool = True) -> Episode:
        """The Ledger's own copy of an episode: one object an id, however often it was read."""
        known = self.mates.get(episode.group_key or "", {}).get(episode.id)
        last = self.latest.get(episode.fingerprint)
        if last is not None and last.id == episode.id:
            known = last
        kept = known or episode
        if newest:
            self.latest[kept.fingerprint] = kept
        self._keep_mate(kept)
        return kept

    def take_pauses(self, pauses: dict[str, Pause]) -> None:
        self.pauses = pauses
        self.mutes.clear()

    # -- keeping them --------------------------------------------------------------------------------------------------

    def _record(self, episode: Episode, decision: Decision, times: int, previously_seen: datetime) -> None:
        """Count an unchanged decision; write a row for a change of mind."""
        self._touch(episode)
        content = (str(decision.action), str(decision.reason), decision.trigger_id)
        if content == (episode.action, episode.reason, episode.decided_trigger) and episode.decision_id is not None:
            episode.decision_count += times
            return
        if episode.decision_id is not None:
            self.ended_decisions.append((episode.decision_id, episode.decision_count, previously_seen))
        row = self._write(episode.id, episode.route, episode.group_key, decision)
        episode.decision_id, episode.decision_count = row.id, times
        episode.action, episode.reason, episode.decided_trigger = content

    def _write(self, alert: UUID | None, route: str | None, key: str | None, decision: Decision) -> DecisionRow:
        action, reason = str(decision.action), str(decision.reason)
        row = DecisionRow(
            self.new_id(),
            alert,
            decision.trigger_id,
            route,
            key,
            action,
            reason,
            decision.until,
            decision.detail,
            self.now,
        )
        self.decisions.append(row)
        return row

    def _wake_by(self, group: Group, at: datetime | None) -> None:
        """The group is woken at `at` or earlier. What is past already has been decided in this very pass."""
        if at is None or at <= self.now:
            return
        if group.wake_at is None or at < group.wake_at:
            group.wake_at = at
            self._mark(group)

    def _keep_mate(self, episode: Episode) -> None:
        if episode.group_key is not None and (episode.firing or episode.late_at is not None):
            self.mates.setdefault(episode.group_key, {})[episode.id] = episode

    def _touch(self, episode: Episode) -> None:
        if episode.id not in self.created:
            self.changed[episode.id] = episode

    def _mark(self, group: Group) -> None:
        self.changed_groups.add(group.key)
