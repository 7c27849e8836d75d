"""What the prose of this project avoids, and why. Each rule shows a sentence that breaks it and one that says it plainly.

The words were found in our own texts. A rule that meets good English more often than bad does not belong here.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rule:
    """One pattern. `bad` breaks the rule and `good` says the same in plain words; the tests hold both to it."""

    name: str
    pattern: str
    why: str
    bad: str
    good: str


_BE: Final = r"(?:is|are|was|were|be|been|being)"
_ONE_CLAUSE: Final = r"(?:(?!\b(?:and|or|nor|but|so|when|while|if|because|as|where|than|until)\b)[^.;:,?()\n])"

RULES: Final = (
    Rule(
        "that-which",
        r"\bthat (?:which|who)\b|\bthose which\b",
        "name the thing",
        "It keeps that which was read.",
        "It keeps the answer that it read.",
    ),
    Rule(
        "he",
        r"\b(?:he|him|his|himself)\b",
        "a user is nobody's he: say you, they, or the role",
        "The operator sees it when he looks.",
        "The operator sees it at the next look.",
    ),
    Rule(
        "told",
        rf"\b{_BE} (?:not |then |only |also |still |never )?told\b|\btold of\b|\btell(?:s|ing)? of\b",
        "say who sends what to whom: a notice goes to a receiver, a log line names a fault",
        "A lost run is told.",
        "The gateway sends a notice when a run is lost.",
    ),
    Rule(
        "heard-of",
        r"\b(?:heard|hears?|hearing) (?:of|from)\b",
        "say what arrives: an alert, a request, an answer",
        "An alert not heard of for six hours no longer fires.",
        "An alert that has not arrived for six hours no longer fires.",
    ),
    Rule(
        "of-its-day",
        r"\bof (?:its|their|that) day\b",
        "say at which time, or which version",
        "The policy of its day decided.",
        "The policy in force at that time decided.",
    ),
    Rule(
        "bare-who",
        r"\b(?:to|for|of|from|by|with) who\b"
        # From nine words on it is a sentence; below, often the title of a field: "Who paused it, and why."
        r"|(?:^|\. )Who (?!(?:is|are|was|were|does|did|has|can|may|else)\b)(?:[^\s.?;:]+ ){7,}[^\s.?;:]+\.",
        "put a noun before who: the person who, the client that",
        "The answer goes to who asked.",
        "The answer goes to the client that asked.",
    ),
    Rule(
        "the-one-that-it",
        r"\bthe ones? (?:that|which) (?:it|they)\b",
        "name the thing",
        "It shows the one that it came nearest to.",
        "It shows the route that came nearest to a match.",
    ),
    Rule(
        "by-hand-of",
        r"\bby \w+'s hand\b",
        "say who does it: a person, in MLflow",
        "An alias set by somebody's hand stays.",
        "An alias that a person set in MLflow stays.",
    ),
    Rule(
        "what-of",
        r"\bwhat of\b",
        "say which part",
        "It keeps what of an answer matters.",
        "It keeps the part of an answer that matters.",
    ),
    Rule(
        "of-ours",
        r"\bof (?:ours|theirs|yours|hers)\b",
        "say our, their, your before the noun",
        "DAG runs of ours that are open.",
        "Our open DAG runs.",
    ),
    Rule(
        "papers",
        r"\b(?:its|their|all|the|with|lacks?|missing) papers\b",
        "the design's word is metadata",
        "A version with all its papers passes.",
        "A version with all its metadata passes.",
    ),
    Rule(
        "telling",
        r"\b(?:a|the|each|every|this|first|last|next|one) telling\b|\btellings\b",
        "the design's words are notice and attempt",
        "Each telling has a key.",
        "Each notice has a key.",
    ),
    Rule(
        "double-negation",
        r"\bnot (?:without|impossible|unlike|unlikely|unknown|unusual|unable|unread|unwell)\b"
        rf"|\b(?:nothing|nobody|never|no one)\b{_ONE_CLAUSE}{{0,40}}\b(?:not|never|nothing|nobody)\b"
        rf"|\bnot\b{_ONE_CLAUSE}{{0,20}}\b(?:nothing|nobody|never)\b",
        "say what is true",
        "Nobody may not see it.",
        "Everybody may see it.",
    ),
    Rule(
        "inversion",
        r"\b(?:were|be) (?:it|they)\b|\bhad (?:it|they) (?:not )?been\b|\bshould (?:it|they) \w+,",
        "begin with if",
        "Were it the only route, it would match.",
        "If it were the only route, it would match.",
    ),
    Rule(
        "shall",
        r"\bshall\b",
        "say must, will or should",
        "Set the database that it shall use.",
        "Set the database that it must use.",
    ),
    Rule(
        "formal",
        r"\b(?:thereof|therein|thereby|hereby|whereby|wherein|whereof|lest|albeit|amongst|whilst|upon|hence|henceforth"
        r"|beforehand|notwithstanding|aforementioned|thusly)\b",
        "use a common word",
        "The token is read, whereby it is renewed.",
        "The gateway reads the token and renews it.",
    ),
    Rule(
        "latin",
        r"\b(?:e\.g\.|i\.e\.|etc\.|cf\.|viz\.|resp\.)",
        "say for example, that is, and so on",
        "A number, e.g. three.",
        "A number, for example three.",
    ),
    Rule(
        "former-latter",
        r"\bthe (?:former|latter)\b",
        "a reader has to look back: say the noun again",
        "It obeys the cooldown and the limit; force overrides the latter.",
        "It obeys the cooldown and the limit; force overrides the limit.",
    ),
    Rule(
        "wordy",
        r"\b(?:in order to|due to the fact|at this point in time|in the event (?:of|that)|with regard to|in respect of"
        r"|for the purpose of|make use of|prior to|subsequent to|in the vicinity of|and/or)\b",
        "use the short form: to, because, now, if, about, before, after, or both",
        "It waits in order to group them.",
        "It waits to group them.",
    ),
    Rule(
        "obvious",
        r"\b(?:obviously|of course|needless to say|as everybody knows|it goes without saying)\b",
        "what is obvious needs no sentence, and it may not be",
        "The run is, of course, followed.",
        "The gateway follows the run.",
    ),
)
