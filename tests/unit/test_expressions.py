"""The rules of a promotion as text: what can be read, and every mistake at its character. Fuzzing never crashes it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policy.language.expressions import Metric, Rule, RuleError, metrics_in, parse_rule

F1, CHAMPION = Metric("f1"), Metric("f1", incumbent=True)

READABLE = [
    ("f1 >= 0.80", [F1]),
    ("f1>=champion.f1+0.005", [F1, CHAMPION]),
    ("rmse <= champion.rmse * 1.02", [Metric("rmse"), Metric("rmse", incumbent=True)]),
    ("`val/f1 score` > champion . `val.f1`", [Metric("val/f1 score"), Metric("val.f1", incumbent=True)]),
    ("(f1 > 0.9 or auc > 0.9) and -loss < 1e-3", [F1, Metric("auc"), Metric("loss")]),
    ("((f1)) > ((1 + 2) * 3)", [F1]),
    ("`and` > 1 and orange < 2", [Metric("and"), Metric("orange")]),
    ("1 < 2", []),
    ("`champion` > .5", [Metric("champion")]),
    ("f1 != 1.", [F1]),
    ("\tf1 \n >= 1", [F1]),
]


@pytest.mark.parametrize(("text", "metrics"), READABLE)
def test_what_a_rule_names(text: str, metrics: list[Metric]) -> None:
    assert list(metrics_in(parse_rule(text).condition)) == metrics
    assert str(parse_rule(text)) == text


WORTH = (
    "5%=0.05 200ms=0.2 1.5s=1.5 2m=120 1h=3600 1d=86400 1KiB=1024 500MiB=524288000 1GiB=1073741824 1e-3=0.001 0.80=0.8"
)


@pytest.mark.parametrize(("written", "worth"), [entry.split("=") for entry in WORTH.split()])
def test_what_a_number_is_worth(written: str, worth: str) -> None:
    condition = parse_rule(f"x < {written}").condition
    assert condition.right.value == Decimal(worth)  # type: ignore[union-attr]


COMPARE = "expected a comparison: one of < <= > >= == !="
VALUE = "expected a number, the name of a metric, - or ("

MISTAKES = [
    ("", 0, f"{VALUE}, found the end"),
    ("f1", 2, f"{COMPARE}, found the end"),
    ("f1 >", 4, f"{VALUE}, found the end"),
    ("f1 => 1", 3, "unexpected '='; use ==, >= or <="),
    ("f1 = 1", 3, "unexpected '='; use ==, >= or <="),
    ("0.5 < f1 < 1", 9, "one comparison after another; join two with `and`, found '<'"),
    ("val.f1 > 1", 3, "only champion takes a dot; write a name with a dot in backticks, found '.'"),
    ("challenger.f1 > 1", 10, "only champion takes a dot; write a name with a dot in backticks, found '.'"),
    ("champion > 1", 9, "expected a dot and a metric, as in champion.f1, found '>'"),
    ("champion. > 1", 10, "expected a metric after champion and the dot, found '>'"),
    ("(f1 > 1", 7, "the parenthesis at character 1 is not closed: expected ), found the end"),
    ("f1 > 1)", 6, "expected `and`, `or` or the end, found ')'"),
    ("f1 > 10min", 7, "'min' is not a unit; the units are %, ms, s, m, h, d, KiB, MiB, GiB"),
    ("f1 > 1 2", 7, "expected `and`, `or` or the end, found '2'"),
    ("f1 > 1 and", 10, f"{VALUE}, found the end"),
    ("f1 and f1 > 1", 3, f"{COMPARE}, found 'and'"),
    ("f1 > 1 or auc", 13, f"{COMPARE}, found the end"),
    ("and > 1", 0, "expected a metric; one that is called and is written in backticks, found 'and'"),
    ("(f1 > 1) + 2 > 3", 0, "expected a number here, not a comparison"),
    ("2 * (f1 > 1) > 3", 4, "expected a number here, not a comparison"),
    ("not f1 > 1", 4, f"{COMPARE}, found 'f1'"),
    ("f1 > `", 5, "this backtick is never closed, or nothing is inside"),
    ("f1 > ``", 5, "this backtick is never closed, or nothing is inside"),
    ("f1 > 'a'", 5, 'unexpected "\'"'),
    ("__import__('os')", 10, f"{COMPARE}, found '('"),
    ("f1 > 1; f2", 6, "unexpected ';'"),
    ("f1 ** 2 > 1", 4, f"{VALUE}, found '*'"),
    ("f1 > 1e99999", 5, "this number is too long, found '1e99999'"),
    ("f1 > " + "9" * 41, 5, f"this number is too long, found '{'9' * 41}'"),
    ("-" * 50 + "1 > f1", 40, "more than 40 parentheses and signs inside each other, found '-'"),
    ("(" * 50 + "1 > f1", 40, "more than 40 parentheses and signs inside each other, found '('"),
    ("+".join("a" * 102) + " > 1", 201, "a rule has at most 100 of + - * /, found '+'"),
    ("f1 > 1" + " " * 1000, 1000, "a rule has at most 1000 characters"),
]


@pytest.mark.parametrize(("text", "offset", "message"), MISTAKES)
def test_each_mistake_is_told_at_its_character(text: str, offset: int, message: str) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule(text)
    assert (raised.value.offset, raised.value.message) == (offset, message)


WORDS = [
    "f1",
    "champion",
    ".",
    "`a b`",
    "and",
    "or",
    "(",
    ")",
    "<",
    ">=",
    "==",
    "+",
    "-",
    "*",
    "/",
    "1",
    "5%",
    "2x",
    "`",
    "=",
]


def test_the_deepest_rule_can_be_compared_and_shown() -> None:
    text = "(" * 39 + "+".join("a" * 101) + ")" * 39 + " > 1"
    assert parse_rule(text) == parse_rule(text)
    assert repr(parse_rule(text))


def read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_rule(text), Rule)
    except RuleError as error:
        refusal = error
    else:
        return
    assert 0 <= refusal.offset <= len(text)
    assert refusal.message


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refused(text)


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_any_words_of_the_grammar_are_read_or_refused(text: str) -> None:
    read_or_refused(text)
