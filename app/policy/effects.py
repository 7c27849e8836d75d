"""`effect:` and `on_no_effect:` of a route: when a retrain counts as one that helped, and what follows when none does."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from app.policy.receivers import ReceiverNames
from app.policy.values import Frozen, PositiveDuration, choice


class EffectTerms(Frozen):
    """When the gateway judges whether a retrain ended what started it. The time counts from the promotion, or from the
    end of the DAG run where no gate promotes."""

    settle: PositiveDuration = timedelta(hours=6)
    """How long the alerts behind the trigger may still fire after the new model. An alert that goes stale has not
    ended."""
    watch: PositiveDuration = timedelta(days=7)
    """How long no alert of the group may begin after the new model."""


class OnNoEffect(Frozen):
    """What follows when retrains of a group do not help."""

    after: Annotated[int, Field(ge=1, le=100_000)] = 3
    """After how many retrains in a row without effect. One that failed, or whose effect is unknown, does not
    count."""
    then: Annotated[Literal["tell", "hold"], choice("tell", "hold")] = "tell"
    """`tell` sends a notice, and the group goes on. `hold` sends it too, and the group fires no more until it is
    released."""
    receivers: ReceiverNames | None = None
    """Who gets the notice. Without it: as `notify.no_effect` says."""
