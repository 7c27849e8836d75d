"""What Prometheus' answers mean, and how a group's labels come into a query."""

from typing import Any

import pytest

from app.groups.prometheus import Outcome, judge
from app.policy.language.promql import compares_to_bool, render_query
from tests.unit.builders import NOW
from tests.unit.test_policy_errors import errors_of

T = NOW.timestamp()


def vector(*values: Any, at: float = T) -> dict[str, Any]:
    return {"resultType": "vector", "result": [{"metric": {"model": "a"}, "value": [at, str(v)]} for v in values]}


def scalar(value: str) -> dict[str, Any]:
    return {"resultType": "scalar", "result": [T, value]}


PLAIN, BOOL = "accuracy < 0.85", "accuracy < bool 0.85"

ANSWERS = [
    ("a sample says yes", PLAIN, vector(0.7), Outcome.YES, "confirmed by Prometheus: 0.7"),
    ("its value may be 0", "errors < 5", vector(0), Outcome.YES, "confirmed by Prometheus: 0"),
    ("one of several is enough", PLAIN, vector("NaN", 0.7), Outcome.YES, "confirmed by Prometheus: 0.7"),
    ("infinity is a number", PLAIN, vector("+Inf"), Outcome.YES, "confirmed by Prometheus: inf"),
    ("no series", PLAIN, vector(), Outcome.NO, "no series satisfies"),
    ("not a number", PLAIN, vector("NaN"), Outcome.NO, "not a number"),
    ("bool says yes", BOOL, vector(0, 1), Outcome.YES, "confirmed by Prometheus: 1"),
    ("bool says no", BOOL, vector(0), Outcome.NO, "the value is 0"),
    ("bool in a string is none", 'x{a="is bool "} < 1', vector(0), Outcome.YES, "confirmed by Prometheus: 0"),
    ("a scalar says yes", "scalar(x)", scalar("0.5"), Outcome.YES, "confirmed by Prometheus: 0.5"),
    ("a scalar says no", "scalar(x)", scalar("0"), Outcome.NO, "the value is 0"),
    ("a scalar of nothing", "scalar(x)", scalar("NaN"), Outcome.NO, "not a number"),
    ("of five minutes ago", PLAIN, vector(0.7, at=T - 300), Outcome.YES, "confirmed by Prometheus"),
    ("of longer ago", PLAIN, vector(0.7, at=T - 301), Outcome.ERROR, "of another time"),
    ("of the future", PLAIN, vector(0.7, at=T + 301), Outcome.ERROR, "of another time"),
    ("of no time", PLAIN, vector(0.7, at=float("nan")), Outcome.ERROR, "of another time"),
    ("a range", PLAIN, {"resultType": "matrix", "result": []}, Outcome.ERROR, "the type matrix"),
    ("a text", '"x"', {"resultType": "string", "result": [T, "x"]}, Outcome.ERROR, "the type string"),
    ("histograms", PLAIN, {"resultType": "vector", "result": [{"metric": {}, "histogram": []}]}, Outcome.ERROR, "no vector"),
    ("no number", PLAIN, vector("many"), Outcome.ERROR, "no vector"),
    ("no list", PLAIN, {"resultType": "vector", "result": 5}, Outcome.ERROR, "no vector"),
    ("half a sample", PLAIN, {"resultType": "scalar", "result": [T]}, Outcome.ERROR, "no vector"),
    ("nothing", PLAIN, {}, Outcome.ERROR, "no vector"),
    ("null", PLAIN, None, Outcome.ERROR, "no vector"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "data", "outcome", "detail"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS])
def test_an_answer_means(query: str, data: Any, outcome: Outcome, detail: str) -> None:
    found = judge(200, {"status": "success", "data": data}, query, NOW)
    assert found[0] is outcome
    assert detail in found[1]


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}, "it answered 400: parse error"),
        (503, "starting up", "it answered 503"),
        (302, "", "it answered 302"),
        (200, "<html>", "it answered 200"),
        (200, {"status": "error", "error": "x" * 999}, "it answered 200: " + "x" * 200),
        (200, [], "it answered 200"),
    ],
)
def test_what_is_no_answer_is_an_error(status: int, body: Any, detail: str) -> None:
    assert judge(status, body, PLAIN, NOW) == (Outcome.ERROR, detail)


@pytest.mark.parametrize(
    ("query", "value", "filled"),
    [
        ('x{m="{{group.m}}"}', "churn", 'x{m="churn"}'),
        ('x{m="{{group.m}}"}', 'a"} or vector(1) #', r'x{m="a\x22} or vector(1) #"}'),
        ("x{m='{{group.m}}'}", "it's", r"x{m='it\x27s'}"),
        ('x{m="{{group.m}}"}', "back\\slash", r'x{m="back\\slash"}'),
        ('x{m="{{group.m}}"}', "line\nbreak\x00", r'x{m="line\x0abreak\x00"}'),
        ('x{m="{{group.m}}"}', "größe", 'x{m="größe"}'),
        ('x{m="{{group.m}}"}', "{{group.m}}", 'x{m="{{group.m}}"}'),
        ('x{m=~"{{group.m}}"}', ".*", r'x{m=~"\\.\\*"}'),
        ('x{m!~ "a|{{group.m}}"}', "b|c", r'x{m!~ "a|b\\|c"}'),
        ('x{a=~".*",m="{{group.m}}"}', ".*", 'x{a=~".*",m=".*"}'),
    ],
)
def test_a_label_stays_the_text_that_it_is(query: str, value: str, filled: str) -> None:
    assert render_query(query, {"m": value}) == filled


def test_bool_counts_where_it_is_a_word_of_the_query() -> None:
    assert compares_to_bool('x{a="b"} > bool 1')
    assert not compares_to_bool("x > 1 # not bool")
    assert not compares_to_bool("boolean > 1")


QUOTES = 'a placeholder must stand in quotes: it is filled with text, such as {model="{{group.model}}"}'


@pytest.mark.parametrize(
    ("confirm", "expected"),
    [
        ("x", ["7:12: routes.0.confirm: must be a mapping"]),
        ("{}", ["7:12: routes.0.confirm.prometheus: required", "7:12: routes.0.confirm.query: required"]),
        ("{prometheus: x, query: up}",
         ["7:25: routes.0.confirm.prometheus: must be an address such as http://host.example:8080"]),
        ("{prometheus: http://p, query: ''}", ["7:42: routes.0.confirm.query: must not be empty"]),
        ("{prometheus: http://p, query: up, on_error: wait}",
         ["7:56: routes.0.confirm.on_error: must be fire or suppress"]),
        ("{prometheus: http://p, query: up, onerror: fire}",
         ["7:46: routes.0.confirm.onerror: unknown key; did you mean on_error?"]),
        ("{prometheus: http://p, query: '{{group.model}} < 1'}", [f"7:43: routes.0.confirm.query: {QUOTES}"]),
        ("{prometheus: http://p, query: 'x{a=`{{group.model}}`}'}", [f"7:48: routes.0.confirm.query: {QUOTES}"]),
        ("{prometheus: http://p, query: 'x{a=\"{{group.team}}\"}'}",
         ["7:48: routes.0.confirm.query: 'team' is not in the route's group_by"]),
    ],
)  # fmt: skip
def test_mistakes_in_confirm_are_told_at_their_place(confirm: str, expected: list[str]) -> None:
    head = "version: 1\nairflow:\n- {name: default, url: http://airflow:8080}\nroutes:\n- match: []\n  dag: {id: x}\n"
    assert errors_of(f"{head}  confirm: {confirm}\n  group_by: [model]") == expected
