"""What each requirement comes to: a table of versions and incumbents, and arithmetic that never crashes."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policy.file.load import parse_policy
from app.policy.language.evaluate import NotANumber
from app.policy.language.expressions import RuleError, parse_rule
from app.policy.promotions import Promotion
from app.promotion.model import Artifact, Input, Verdict, Version
from app.promotion.rules import evaluate, judge, only_not_better, passed

POLICY = """
version: 1
airflow: [{name: a, url: http://a}]
routes: []
mlflow: {tracking_uri: http://m}
promotions:
"""


def entry(*lines: str) -> Promotion:
    text = POLICY + "  - {model: churn, to: champion}".replace("}", "".join(f", {line}" for line in lines) + "}")
    return parse_policy(text, "p.yaml", {}).promotions[0]


def version(number: str = "2", **more: Any) -> Version:
    return Version("churn", number, **more)


def verdict(rule: str, candidate: dict[str, float], incumbent: dict[str, float] | None = None) -> Verdict:
    holder = None if incumbent is None else version("1", metrics=incumbent)
    return judge(entry(f"rules: ['{rule}']"), version(metrics=candidate), holder, name="churn 2")[-1]


NAN, INF = math.nan, math.inf
RULES: list[tuple[str, dict[str, float], dict[str, float] | None, bool, str]] = [
    ("f1 >= 0.80", {"f1": 0.8}, None, True, "f1 is 0.8"),
    ("f1 >= 0.80", {"f1": 0.79}, None, False, "f1 is 0.79"),
    ("f1 >= champion.f1", {"f1": 0.85}, {"f1": 0.85}, True, "f1 is 0.85, champion.f1 is 0.85"),
    ("f1 > champion.f1", {"f1": 0.85}, {"f1": 0.85}, False, "f1 is 0.85, champion.f1 is 0.85"),
    ("f1 >= champion.f1 + 0.005", {"f1": 0.855}, {"f1": 0.85}, True, "f1 is 0.855, champion.f1 is 0.85"),
    ("f1 == champion.f1 + 0.2", {"f1": 0.3}, {"f1": 0.1}, True, "f1 is 0.3, champion.f1 is 0.1"),
    ("rmse <= champion.rmse * 1.02", {"rmse": 1.03}, {"rmse": 1.0}, False, "rmse is 1.03, champion.rmse is 1.0"),
    ("latency < 200ms", {"latency": 0.25}, None, False, "latency is 0.25"),
    ("f1 >= champion.f1", {"f1": 0.1}, None, True, "f1 is 0.1; no other version holds champion"),
    ("f1 > 0.5 and f1 > champion.f1", {"f1": 0.1}, None, False, "f1 is 0.1; no other version holds champion"),
    ("f1 > 0.9 or auc > 0.9", {"f1": 0.1, "auc": 0.95}, None, True, "f1 is 0.1, auc is 0.95"),
    ("f1 != 0.5", {"f1": NAN}, None, False, "f1 is NaN"),
    ("f1 > 0.9 or auc > 0.9", {"f1": 0.99, "auc": NAN}, None, False, "auc is NaN"),
    ("f1 > champion.f1", {"f1": 0.9}, {"f1": NAN}, False, "champion.f1 is NaN"),
    ("f1 > 0.9 or auc > 0.9", {"f1": 0.99}, None, False, "version 2 has no metric auc"),
    ("f1 > champion.f1", {"f1": 0.9}, {}, False, "the incumbent, version 1, has no metric f1"),
    ("f1 < 2", {"f1": -INF}, None, False, "f1 is infinite"),
    ("f1 >= champion.f1", {"f1": INF}, {"f1": 0.9}, False, "f1 is infinite"),
    ("f1 <= champion.f1", {"f1": 0.9}, {"f1": INF}, False, "champion.f1 is infinite"),
    ("f1 / auc < 2", {"f1": 1, "auc": 0}, None, False, "1 / 0 is no number"),
    ("f1 / auc < 2 or f1 == 0", {"f1": 0, "auc": 0}, None, False, "0 / 0 is no number"),
    ("1 < 2", {}, None, True, "the rule names no metric"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "candidate", "incumbent", "holds", "detail"), RULES)
def test_what_a_rule_comes_to(
    rule: str, candidate: dict[str, float], incumbent: dict[str, float] | None, holds: bool, detail: str
) -> None:
    found = verdict(rule, candidate, incumbent)
    assert (found.passed, found.detail) == (holds, detail)


GOOD: dict[str, Any] = {
    "run": "r1",
    "params": {"depth": "3"},
    "metrics": {"f1": 0.9, "odd": NAN, "huge": INF},
    "tags": {"commit": "abc", "gateway.digest.model": "sha256:1"},
    "inputs": {
        "training": (Input("churn", "d1"), Input("more", "d2")),
        "loose": (Input("a", "d1"), Input("churn", "")),
    },
    "artifacts": {"model": Artifact("m/1", "sha256:1"), "report": Artifact("r/1")},
    "aliases": ("staging",),
}
PAPERS = [
    ("require: {params: [depth]}", {}, "param depth", True, "depth is 3"),
    ("require: {params: [width]}", {}, "param width", False, "no param width"),
    ("require: {metrics: [f1]}", {}, "metric f1", True, "f1 is 0.9"),
    ("require: {metrics: [auc]}", {}, "metric auc", False, "no metric auc"),
    ("require: {metrics: [odd]}", {}, "metric odd", False, "odd is nan"),
    ("require: {metrics: [huge]}", {}, "metric huge", False, "huge is inf"),
    ("require: {tags: [commit]}", {}, "tag commit", True, "commit is abc"),
    ("require: {tags: [commit]}", {"tags": {"commit": ""}}, "tag commit", False, "no tag commit"),
    ("require: {inputs: [training]}", {}, "input training", True, "churn with digest d1, more with digest d2"),
    ("require: {inputs: [test]}", {}, "input test", False, "no data set was logged as test"),
    ("require: {inputs: [loose]}", {}, "input loose", False, "churn has no digest"),
    ("require: {artifacts: [model]}", {}, "artifact model", True, "m/1 sha256:1"),
    ("require: {artifacts: [report]}", {}, "artifact report", True, "r/1"),
    ("require: {artifacts: [card]}", {}, "artifact card", False, "no artifact card, or it cannot be read"),
    ("require: {artifacts: [model]}", {"tags": {"gateway.digest.model": "sha256:2"}}, "artifact model", False,
     "model has the digest sha256:1, and its tag says sha256:2"),
    ("requires: staging", {}, "requires staging", True, "version 2 holds staging"),
    ("requires: staging", {"aliases": ()}, "requires staging", False, "version 2 does not hold staging"),
    ("rules: []", {}, "run", True, "run r1 is there"),
    ("rules: []", {"run_missing": "run r1 was deleted"}, "run", False, "run r1 was deleted"),
    ("rules: []", {"run": "", "status": "FAILED_REGISTRATION"}, "version", False, "version 2 is FAILED_REGISTRATION"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "more", "rule", "holds", "detail"), PAPERS)
def test_what_a_paper_comes_to(line: str, more: dict[str, Any], rule: str, holds: bool, detail: str) -> None:
    found = judge(entry(line), version(**(GOOD | more)), None, name="churn 2")
    verdicts = {verdict.rule: (verdict.passed, verdict.detail) for verdict in found}
    assert verdicts[rule] == (holds, detail)
    assert passed(found, override=False) is all(ok for ok, _ in verdicts.values())


def test_a_version_that_is_not_there_or_not_ready_is_beyond_any_override() -> None:
    missing = judge(entry("rules: ['f1 > 1']"), None, None, name="churn 9")
    assert [(verdict.rule, verdict.detail) for verdict in missing] == [("version", "there is no version churn 9")]
    pending = judge(entry("rules: []"), version(status="PENDING_REGISTRATION"), None, name="churn 2")
    worse = judge(entry("rules: ['f1 > 1']"), version(metrics={"f1": 0.5}), None, name="churn 2")
    assert [passed(verdicts, override=True) for verdicts in (missing, pending, worse)] == [False, False, True]


@pytest.mark.parametrize(("f1", "merely"), [(0.85, True), (0.1, False), (NAN, False)])
def test_who_is_below_a_floor_is_not_merely_worse(f1: float, merely: bool) -> None:
    gate = entry("rules: ['f1 >= 0.80 and f1 >= champion.f1']")
    worse, holder = version(metrics={"f1": f1}), version("1", metrics={"f1": 0.9})
    assert only_not_better(gate, worse, holder, judge(gate, worse, holder, name="churn 2")) is merely


NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 1e308, -1e308, 5e-324]))
TERMS = ["f1", "auc", "champion.f1", "0", "1e300", "-2%", "(f1 - auc)", "f1 / auc", "f1 * 1e300", "auc / (f1 - f1)"]


@given(
    left=st.sampled_from(TERMS),
    right=st.sampled_from(TERMS),
    sign=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    candidate=st.dictionaries(st.sampled_from(["f1", "auc"]), NUMBERS),
    incumbent=st.none() | st.dictionaries(st.just("f1"), NUMBERS),
)
def test_arithmetic_has_a_result_or_says_why_not(
    left: str, right: str, sign: str, candidate: dict[str, float], incumbent: dict[str, float] | None
) -> None:
    holder = None if incumbent is None else version("1", metrics=incumbent)
    with suppress(NotANumber):
        result, _ = evaluate(parse_rule(f"{left} {sign} {right}"), version(metrics=candidate), holder)
        assert result in (True, False)


@given(st.text(max_size=30))
def test_whatever_is_a_rule_can_be_judged(text: str) -> None:
    try:
        rule = parse_rule(text)
    except RuleError:
        return
    with suppress(NotANumber):
        evaluate(rule, version(), None)
