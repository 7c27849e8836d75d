"""Which episodes end otherwise under the candidate, and which key of the policy did it. Pure.

The key is found by trial: a replay with that key alone, or with every key but that one. So the report does not guess.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.decide.state import Reason
from app.kit.times import iso
from app.policy.language.durations import format_duration
from app.replay.differences import Difference
from app.replay.figures import Fate, Key
from app.replay.history import group_name

#: Replays the policy that has only these keys of the candidate; the fates of its episodes.
Trial = Callable[[Sequence[Difference]], Mapping[Key, Fate]]

#: More keys than this are not tried one by one.
MOST_TRIALS = 12


@dataclass(frozen=True, slots=True)
class Changed:
    """One episode that ends otherwise."""

    now: Fate | None
    proposed: Fate | None
    keys: tuple[Difference, ...]

    @property
    def known(self) -> Fate:
        """The episode as whichever of both knows it."""
        found = self.now or self.proposed
        assert found is not None
        return found

    @property
    def text(self) -> str:
        """One sentence for people."""
        fate = self.now if self.now is not None and self.now.route else self.known
        name = group_name(fate.group, fate.route or fate.name)
        keys = ", ".join(str(key) for key in self.keys) or "the policy"
        return f"{name} {moment(fate.begin)}: {keys}; {self._what}"

    @property
    def _what(self) -> str:
        before = self.now.fires if self.now else ()
        after = self.proposed.fires if self.proposed else ()
        if not after and self.proposed is None:
            return "it is no episode of its own any more"
        if not after and self.proposed is not None:
            if before or not self.proposed.route:
                return _why(self.proposed)
            change = "a run of its group comes now" if self.proposed.reached else "no run of its group comes any more"
            return f"{change}; {_why(self.proposed)}"
        if not before:
            return f"it starts a run at {moment(after[0])}" + (f", and {len(after) - 1} more" if after[1:] else "")
        if len(before) != len(after):
            return f"{len(before)} {_runs(len(before))} become {len(after)}"
        moved = next(later - earlier for earlier, later in zip(before, after, strict=True) if later != earlier)
        word = "later" if moved > timedelta(0) else "earlier"
        return f"its run begins {_about(abs(moved))} {word}"

    def as_json(self) -> dict[str, Any]:
        """As the report has it."""
        fate = self.known
        return {
            "route": fate.route,
            "group": dict(fate.group),
            "alert_id": fate.name,
            "fingerprint": fate.key[0],
            "since": iso(fate.begin),
            "until": iso(fate.end) if fate.is_over else None,
            "now": [iso(at) for at in self.now.fires] if self.now else [],
            "proposed": [iso(at) for at in self.proposed.fires] if self.proposed else [],
            "keys": [key.name for key in self.keys],
            "text": self.text,
        }


def changed(
    now: Mapping[Key, Fate], proposed: Mapping[Key, Fate], differences: Sequence[Difference], trial: Trial
) -> list[Changed]:
    """Every episode that ends otherwise, oldest first."""
    keys = [key for key in now.keys() | proposed.keys() if _outcome(now.get(key)) != _outcome(proposed.get(key))]
    if not keys:
        return []
    causes = _causes(keys, proposed, differences, trial)
    found = [Changed(now.get(key), proposed.get(key), causes[key]) for key in keys]
    return sorted(found, key=lambda each: (each.known.begin, each.known.key))


def _causes(
    keys: Sequence[Key],
    proposed: Mapping[Key, Fate],
    differences: Sequence[Difference],
    trial: Trial,
) -> dict[Key, tuple[Difference, ...]]:
    """The keys of the policy behind each change."""
    if len(differences) < 2 or len(differences) > MOST_TRIALS:
        return {key: tuple(differences) if len(differences) < 2 else () for key in keys}
    causes: dict[Key, tuple[Difference, ...]] = {}
    for difference in differences:  # This key alone does it.
        alone = trial([difference])
        for key in keys:
            if key not in causes and _outcome(alone.get(key)) == _outcome(proposed.get(key)):
                causes[key] = (difference,)
    if left := [key for key in keys if key not in causes]:
        needed: dict[Key, list[Difference]] = {key: [] for key in left}
        for difference in differences:  # Without this key it does not happen.
            without = trial([other for other in differences if other is not difference])
            for key in left:
                if _outcome(without.get(key)) != _outcome(proposed.get(key)):
                    needed[key].append(difference)
        causes |= {key: tuple(found) or tuple(differences) for key, found in needed.items()}
    return causes


def _outcome(fate: Fate | None) -> tuple[Any, ...] | None:
    return fate.outcome if fate is not None else None


def _why(fate: Fate) -> str:
    lasted = _about(fate.end - fate.begin)
    match fate.why:
        case Reason.RESOLVED_WHILE_HELD:
            return f"it resolved after {lasted}"
        case Reason.NO_ROUTE:
            return "no route takes it"
        case "":
            return f"it resolved after {lasted}" if fate.is_over else "it is still held at the end"
    words = {
        Reason.COOLDOWN: "its group cools down",
        Reason.IN_FLIGHT: "a run of its group is under way",
        Reason.LIMIT: "the limit of its route is used up",
        Reason.MUTED: "its route is muted",
        Reason.UNCONFIRMED: "Prometheus does not confirm it",
        Reason.SHADOW: "its route is in shadow mode",
    }
    return words.get(Reason(fate.why), f"it is refused ({fate.why})")


def _runs(number: int) -> str:
    return "run" if number == 1 else "runs"


def _about(duration: timedelta) -> str:
    """A duration in whole seconds, or in whole minutes when it is long."""
    unit = timedelta(minutes=1) if duration >= timedelta(minutes=10) else timedelta(seconds=1)
    return format_duration(duration // unit * unit)


def moment(time: datetime) -> str:
    """A moment as a sentence names it: 2 Nov 03:10."""
    return f"{time.day} {time:%b %H:%M}"
