"""`lineage:`, the walk over MLflow that keeps its runs and versions and looks for what lacks its lineage."""

from datetime import timedelta

from app.policy.values import Frozen, PositiveDuration


class Lineage(Frozen):
    """How often a round begins, and how long a run or trigger must be quiet before it is judged: spools deliver late."""

    every: PositiveDuration = timedelta(minutes=15)
    grace: PositiveDuration = timedelta(hours=1)
