"""`--fail-if`: a condition on the figures of a report. Pure. The names are those of the report's JSON."""

from decimal import Decimal

from app.kit.errors import UsageError
from app.policy.language.evaluate import NotANumber, holds
from app.policy.language.expressions import Rule, RuleError, metrics_in, parse_rule
from app.replay.figures import NUMBERS, Figures


def read_condition(text: str) -> Rule:
    """The condition, its names checked. Raises UsageError."""
    try:
        rule = parse_rule(text, incumbent="now")
    except RuleError as error:
        raise UsageError(f"--fail-if {text!r}: character {error.offset + 1}: {error.message}") from error
    for metric in metrics_in(rule.condition):
        if metric.name not in NUMBERS:
            raise UsageError(f"--fail-if: there is no figure {metric.name!r}; the figures are {', '.join(NUMBERS)}")
    return rule


def is_true(rule: Rule, proposed: Figures, now: Figures | None) -> bool:
    """Whether the condition holds. `now.retrains` is the figure of the policy that is compared with. Raises UsageError when
    there is none."""
    seen = {}
    for metric in metrics_in(rule.condition):
        figures = now if metric.incumbent else proposed
        if figures is None:
            raise UsageError(f"--fail-if: now.{metric.name} needs a policy to compare with: add --compare")
        seen[metric] = _decimal(getattr(figures, metric.name))
    try:
        return holds(rule.condition, seen)
    except NotANumber as error:
        raise UsageError(f"--fail-if {rule.text!r}: {error}") from error


def _decimal(value: float) -> Decimal:
    return Decimal(repr(round(value, 3)))
