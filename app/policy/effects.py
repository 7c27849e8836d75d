"""`effect:` of a route: how long to wait before the gateway says whether a retrain helped."""

from datetime import timedelta

from app.policy.values import Frozen, PositiveDuration


class EffectTerms(Frozen):
    """When the gateway judges whether a retrain ended what started it. The time counts from the promotion, or from the
    end of the DAG run where no gate promotes."""

    settle: PositiveDuration = timedelta(hours=6)
    """How long the alerts behind the trigger may still fire after the new model. An alert that goes stale has not
    ended."""
    watch: PositiveDuration = timedelta(days=7)
    """How long no alert of the group may begin after the new model."""
