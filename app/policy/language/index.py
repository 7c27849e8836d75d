"""Which entries of a policy may take these labels? An index finds them, so that a thousand entries cost as much as ten."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import merge

from app.policy.language.matchers import Matcher


class MatcherIndex:
    """Entries by a value that each of them asks for. An entry that names no value may take any labels.

    Of several values that an entry asks for, it stands under the one that the fewest entries share: say under its model,
    and not under the alertname that all have.
    """

    def __init__(self, entries: Iterable[Sequence[Matcher]]) -> None:
        asked = [[[(m.name, value) for value in m.values] for m in matchers if m.values] for matchers in entries]
        shared = Counter(pair for choices in asked for pairs in choices for pair in pairs)
        self._anywhere: list[int] = []
        self._named: dict[str, dict[str, list[int]]] = {}
        for at, choices in enumerate(asked):
            if not choices:
                self._anywhere.append(at)
                continue
            for name, value in min(choices, key=lambda pairs: sum(shared[pair] for pair in pairs)):
                self._named.setdefault(name, {}).setdefault(value, []).append(at)

    def candidates(self, labels: Mapping[str, str]) -> Iterable[int]:
        """The positions of the entries that may take the labels, in their order. All others do not."""
        found = [self._anywhere] if self._anywhere else []
        for name, by_value in self._named.items():
            positions = by_value.get(labels.get(name, ""))
            if positions is not None:
                found.append(positions)
        return merge(*found) if len(found) > 1 else found[0] if found else ()
