"""Which alerts of a batch repeat what Redis remembers, so that only their count changes? Pure.

Memory may be behind Postgres. So an answer from here counts only after a proof: the episode is open and has the same
decision, and the group has the same version.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from app.decide import rules
from app.decide.batch import AlertDecision, Fold
from app.decide.episodes import Move, Window, move_for
from app.decide.ledger import Ledger
from app.decide.placing import Intent, no_route
from app.decide.state import Action, Decision, Episode, Group, Reason
from app.policy.schema import Route


def known_of(
    folds: Sequence[Fold], groups: Mapping[str, Group], episodes: Mapping[str, Episode], ledger: Ledger
) -> list[tuple[Fold, AlertDecision]]:
    """The folds that repeat what is remembered. When one fold of a fingerprint must be decided from Postgres, all its folds
    are, to keep their order. Heartbeats are decided there too, because they also change a switch."""
    decisions = [unchanged(f.intent, episodes, groups, ledger) for f in folds]
    changed = {f.intent.alert.fingerprint for f, v in zip(folds, decisions, strict=True) if v is None}
    known = []
    for fold, decision in zip(folds, decisions, strict=True):
        alert = fold.intent.alert
        if decision is None or alert.fingerprint in changed or ledger.policy.heartbeats_for(alert.labels):
            continue
        route = episodes[alert.fingerprint].route
        known.append((fold, AlertDecision(alert, route, fold.intent.labels, decision)))
    return known


def unchanged(
    intent: Intent, episodes: Mapping[str, Episode], groups: Mapping[str, Group], ledger: Ledger
) -> Decision | None:
    """The decision on a repeat if only its count changes, from memory alone; None: ask Postgres.

    Only Postgres knows the fires of a limit and the pauses. They can make a decision differ from the one before, and then
    Postgres is asked. They never make two different decisions the same."""
    alert, route = intent.alert, intent.route
    episode = episodes.get(alert.fingerprint)
    if episode is None or episode.group_key != intent.key or alert.severity != episode.severity:
        return None
    if move_for(episode, alert, Window(ledger.reorder, _stale_after(route)), ledger.now) is not Move.REPEAT:
        return None
    if alert.starts_at < episode.starts_at:
        return None
    if route is None:
        decision = Decision(Action.IGNORE, Reason.NO_ROUTE, detail=no_route(alert.labels))
    else:
        group = groups.get(intent.key or "")
        if group is None:
            return None
        decision = rules.decide(group, episode, route, ledger.now, ledger.obstacles(route))
        if decision.until is not None and (group.wake_at is None or group.wake_at > decision.until):
            # The same decision as before, but nothing looks at the group when it ends: in the next night of a mute.
            return None
    same = (decision.action, decision.reason, decision.trigger_id) == (
        episode.action,
        episode.reason,
        episode.decided_trigger,
    )
    return decision if same else None


def _stale_after(route: Route | None) -> timedelta | None:
    return route.stale_after if route else None
