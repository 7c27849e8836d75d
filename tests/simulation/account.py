"""What went into the gateways, and what may be expected of it. It knows nothing of their code."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tests.acceptance.world import FakeAlert
from tests.simulation.schedule import STRAY, Sent

REORDER: Final = timedelta(minutes=2)  # GATEWAY_REORDER_WINDOW


class Broken(AssertionError):
    """An invariant does not hold. `invariant` is its short name, `detail` one sentence."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def ensure(holds: object, invariant: str, detail: str) -> None:
    if not holds:
        raise Broken(invariant, detail)


@dataclass
class Intervention:
    """What a person asked of a group. Some requests let it fire earlier than its cooldown says."""

    model: str
    name: str
    began: datetime
    ended: datetime | None = None


@dataclass
class Span:
    """From the first notification that an alert fires to the answer to its resolved; or for ever."""

    fingerprint: str
    model: str
    began: datetime
    ended: datetime | None = None


@dataclass
class Account:
    """By fingerprint, unless its name says otherwise."""

    received: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    firing_since: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # with its model; of what still fires
    promised: set[str] = field(default_factory=set)  # triggers that were answered 201
    interventions: list[Intervention] = field(default_factory=list)
    spans: list["Span"] = field(default_factory=list)  # in which an alert may have fired
    #: An end of each came so short before it that it may count as older, until it is heard again.
    overtaken: set[str] = field(default_factory=set)
    _began: dict[str, datetime] = field(default_factory=dict)
    _ended: dict[str, datetime] = field(default_factory=dict)
    _under_way: list[set[str]] = field(default_factory=list)  # of notifications that have no answer yet
    _contested: set[str] = field(default_factory=set)

    def alert(self, sent: Sent, now: datetime) -> FakeAlert:
        """The alert as its sender sees it."""
        name = "NobodysAlert" if sent.model == STRAY else "ModelAccuracyLow"
        labels = {"alertname": name, "severity": "critical", "model": sent.model, "part": sent.part}
        key = f"{sent.model}/{sent.part}"
        if key not in self._began or (sent.firing and sent.anew):
            self._began[key] = now
        alert = FakeAlert(labels, self._began[key])
        return alert if sent.firing else alert.resolved(now)

    def leaves(self, alerts: Sequence[tuple[str, Sent]], now: datetime) -> None:
        """A notification is on its way. Nobody knows which of two that are on their way together comes first."""
        mine = {fingerprint for fingerprint, _ in alerts}
        open_spans = {span.fingerprint for span in self.spans if span.ended is None}
        self.spans += [Span(f, sent.model, now) for f, sent in alerts if sent.firing and f not in open_spans]
        for others in self._under_way:
            self._contested |= mine & others
        self._under_way.append(mine)
        self.received.update(mine)

    def arrives(self, alerts: Sequence[tuple[str, Sent]], left: datetime, now: datetime, *, acknowledged: bool) -> None:
        """What has `left` has its answer, or will never have one."""
        mine = {fingerprint for fingerprint, _ in alerts}
        self._under_way.remove(mine)
        for fingerprint, sent in alerts:
            if not sent.firing:
                self._ended[fingerprint] = now
            elif fingerprint in self._ended and left - self._ended[fingerprint] <= REORDER:
                self.overtaken.add(fingerprint)
            else:
                self.overtaken.discard(fingerprint)
            if not acknowledged or fingerprint in self._contested:
                self.firing_since.pop(fingerprint, None)  # Whether it fires, no outsider can know.
            elif not sent.firing:
                self.firing_since.pop(fingerprint, None)
                for span in self.spans:
                    if span.fingerprint == fingerprint and span.ended is None:
                        span.ended = now
            elif sent.anew or fingerprint not in self.firing_since:
                self.firing_since[fingerprint] = sent.model, now
        if acknowledged:
            self.acknowledged.update(mine)
        self._contested -= mine - {each for others in self._under_way for each in others}

    def intervenes(self, model: str, name: str, now: datetime) -> Intervention:
        self.interventions.append(Intervention(model, name, now))
        return self.interventions[-1]

    def is_left_alone(self, model: str, since: datetime, until: datetime) -> bool:
        """Whether nobody let the group fire earlier between two moments."""
        return not any(
            each.model == model and each.began <= until and (each.ended is None or each.ended >= since)
            for each in self.interventions
            if each.name in ("force", "reset", "redrive")
        )

    def may_have_fired(self, model: str, at: datetime) -> bool:
        """Whether some alert of the group may have fired at that moment."""
        spans = (span for span in self.spans if span.model == model)
        return any(span.began <= at and (span.ended is None or at <= span.ended) for span in spans)

    def had(self, name: str, model: str | None = None) -> bool:
        """Whether a person asked for this, of any group or of this one."""
        return any(each.name == name and model in (None, each.model) for each in self.interventions)
