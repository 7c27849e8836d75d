"""`lineage:`, the walk over MLflow that records its runs and versions and finds what lacks its lineage."""

from datetime import timedelta

from app.policy.values import Frozen, PositiveDuration


class Lineage(Frozen):
    """The walk over MLflow. It finds runs, versions, aliases and triggers that lack their lineage."""

    every: PositiveDuration = timedelta(minutes=15)
    """How often the gateway walks over MLflow."""
    grace: PositiveDuration = timedelta(hours=1)
    """How long a run or a trigger must be quiet before the gateway judges it. Spools deliver late."""
