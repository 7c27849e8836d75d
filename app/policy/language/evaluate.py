"""What a rule comes to: the values of its names go in, true or false comes out. Pure. Numbers are decimal."""

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Final

from app.policy.language.expressions import Arithmetic, Condition, Joined, Metric, Number, Term

# Without traps 1/0 gives infinity and 0/0 gives NaN. `_work_out` refuses both and shows the division.
_CONTEXT: Final = Context(prec=40, traps=[])


class NotANumber(Exception):
    """A rule cannot be computed; str() says why."""


def holds(condition: Condition, seen: Mapping[Metric, Decimal]) -> bool:
    """Whether a condition holds for these values. A comparison with the incumbent holds while there is no incumbent.

    Raises NotANumber when its arithmetic has no result.
    """
    if isinstance(condition, Joined):
        # Every part is computed, so that 0/0 is found wherever it stands.
        held = [holds(part, seen) for part in condition.parts]
        return all(held) if condition.word == "and" else any(held)
    left, right = _work_out(condition.left, seen), _work_out(condition.right, seen)
    if left is None or right is None:
        return True
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "==": left == right,
        "!=": left != right,
    }[condition.comparator]


def _work_out(term: Term, seen: Mapping[Metric, Decimal]) -> Decimal | None:
    """The number; None when it needs the incumbent and there is none."""
    match term:
        case Number():
            return term.value
        case Metric():
            return seen.get(term)
    left, right = _work_out(term.left, seen), _work_out(term.right, seen)
    if left is None or right is None:
        return None
    assert isinstance(term, Arithmetic)
    work = {"+": _CONTEXT.add, "-": _CONTEXT.subtract, "*": _CONTEXT.multiply, "/": _CONTEXT.divide}
    result = work[term.operator](left, right)
    if result.is_nan() or (term.operator == "/" and right == 0):
        raise NotANumber(f"{left} {term.operator} {right} is no number")
    return result
