"""What the effects of many triggers come to: the sums of a group or a model, and one sentence for people. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.effects.rules import Effect


@dataclass(slots=True)
class Sums:
    """The sums of one group or one model. `retrains` are the fired triggers; each has one effect, or waits for it."""

    name: str
    retrains: int = 0
    waiting: int = 0
    rolled_back: int = 0  # the probation of its version gave the alias back
    seconds: float = 0.0  # of its DAG runs
    newest: datetime | None = None  # when the newest fired
    effects: dict[Effect, int] = field(default_factory=lambda: dict.fromkeys(Effect, 0))

    def add(self, effect: Effect | None, triggers: int, seconds: float, newest: datetime) -> None:
        """Add triggers that have the same effect; None: it is not known yet."""
        self.retrains += triggers
        self.seconds += seconds
        self.newest = max(filter(None, (self.newest, newest)))
        if effect is None:
            self.waiting += triggers
        else:
            self.effects[effect] += triggers

    @property
    def run_hours(self) -> float:
        return round(self.seconds / 3600, 2)

    @property
    def run_hours_per_fix(self) -> float | None:
        """None: nothing was fixed."""
        fixed = self.effects[Effect.FIXED]
        return round(self.seconds / 3600 / fixed, 2) if fixed else None

    def shown(self) -> dict[str, object]:
        """As the API shows them."""
        return {
            "retrains": self.retrains,
            **{str(effect): number for effect, number in self.effects.items()},
            "waiting": self.waiting,
            "rolled_back": self.rolled_back,
            "run_hours": self.run_hours,
            "run_hours_per_fix": self.run_hours_per_fix,
            "newest_at": self.newest,
            "summary": self.summary(),
        }

    def summary(self) -> str:
        """One sentence: does retraining help?"""
        retrains = f"{self.retrains} retrain{'s' if self.retrains != 1 else ''}"
        back = f", {self.rolled_back} rolled back" if self.rolled_back else ""
        verdict = _verdict(self.effects, self.waiting)
        return f"{self.name}: {retrains}, {self.effects[Effect.FIXED]} fixed{back}: {verdict}"


def _verdict(effects: Mapping[Effect, int], waiting: int) -> str:
    fixed, failed = effects[Effect.FIXED], effects[Effect.FAILED]
    recurred = effects[Effect.RECURRED]
    no_better = effects[Effect.NO_MODEL] + effects[Effect.NOT_PROMOTED]
    if not fixed + failed + recurred + no_better:
        return "it is not known yet whether they help" if waiting else "nobody can say whether retraining helps"
    if failed > fixed + recurred + no_better:
        return "most DAG runs fail; repair the DAG first"
    if 2 * fixed >= fixed + recurred + no_better:
        return "retraining helps"
    if no_better > recurred:
        return "retraining brings no better model; look at the data"
    return "retraining does not help; look at the data"


def total(sums: Iterable[Sums], name: str) -> Sums:
    """The sums of several groups together."""
    found = Sums(name)
    for each in sums:
        found.retrains += each.retrains
        found.waiting += each.waiting
        found.rolled_back += each.rolled_back
        found.seconds += each.seconds
        found.newest = max(filter(None, (found.newest, each.newest)), default=None)
        for effect, number in each.effects.items():
            found.effects[effect] += number
    return found
