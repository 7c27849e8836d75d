"""Whether a version may be promoted: one verdict on each requirement of the policy. Pure.

Numbers are decimal: 0.85 + 0.005 is 0.855. A metric that is missing, NaN or infinite fails its rule, wherever it stands in
the rule. A comparison with the incumbent holds while no version holds the alias, so that the first version can be promoted.
"""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

from app.policy.language.evaluate import NotANumber, holds
from app.policy.language.expressions import Metric, Rule, metrics_in
from app.policy.promotions import Promotion
from app.promotion.model import Verdict, Version


def judge(entry: Promotion, version: Version | None, incumbent: Version | None, *, name: str) -> tuple[Verdict, ...]:
    """Every verdict on a version, in the order of the policy. `name`: how a sentence names the version."""
    if version is None:
        return (Verdict("version", False, f"there is no version {name}", final=True),)
    return (*_standing(entry, version), *_metadata(entry, version), *_rules(entry, version, incumbent))


def passed(verdicts: Sequence[Verdict], *, override: bool) -> bool:
    """Whether the version may be promoted. An override overcomes every failure that is not final."""
    return all(verdict.passed or (override and not verdict.final) for verdict in verdicts)


def only_not_better(entry: Promotion, version: Version, incumbent: Version | None, verdicts: Sequence[Verdict]) -> bool:
    """Whether the version fails nothing but comparisons with the incumbent, and no metric of these is missing."""
    failed = {verdict.rule for verdict in verdicts if not verdict.passed}
    return failed <= {rule.text for rule in entry.rules if _compared(rule, version, incumbent)}


def _compared(rule: Rule, version: Version, incumbent: Version | None) -> bool:
    if incumbent is None or not any(metric.incumbent for metric in metrics_in(rule.condition)):
        return False
    try:
        evaluate(rule, version, incumbent)
    except NotANumber:
        return False
    return evaluate(rule, version, None)[0]  # It would hold without an incumbent.


def _standing(entry: Promotion, version: Version) -> Iterator[Verdict]:
    ready = version.status == "READY"
    yield Verdict("version", ready, f"version {version.version} is {version.status}", final=True)
    if version.run:
        detail = version.run_missing or f"run {version.run} is there"
        yield Verdict("run", not version.run_missing, detail)
    if entry.requires is not None:
        holds = entry.requires in version.aliases
        verb = "holds" if holds else "does not hold"
        yield Verdict(f"requires {entry.requires}", holds, f"version {version.version} {verb} {entry.requires}")


def _metadata(entry: Promotion, version: Version) -> Iterator[Verdict]:
    required = entry.require
    for name in required.params:
        value = version.params.get(name, "")
        yield Verdict(f"param {name}", bool(value), f"{name} is {_short(value)}" if value else f"no param {name}")
    for name in required.metrics:
        number = version.metrics.get(name)
        good = number is not None and math.isfinite(number)
        detail = f"no metric {name}" if number is None else f"{name} is {_number(number)}"
        yield Verdict(f"metric {name}", good, detail)
    for name in required.tags:
        value = version.tags.get(name, "")
        yield Verdict(f"tag {name}", bool(value), f"{name} is {_short(value)}" if value else f"no tag {name}")
    for name in required.inputs:
        data = version.inputs.get(name, ())
        detail = ", ".join(f"{item.name} with digest {item.digest}" for item in data)
        bare = next((item.name for item in data if not item.digest), None)
        if bare is not None:
            detail = f"{bare} has no digest"
        yield Verdict(f"input {name}", bool(data) and bare is None, detail or f"no data set was logged as {name}")
    for name in required.artifacts:
        yield _artifact(name, version)


def _artifact(name: str, version: Version) -> Verdict:
    found = version.artifacts.get(name)
    if found is None:
        return Verdict(f"artifact {name}", False, f"no artifact {name}, or it cannot be read")
    declared = version.tags.get(f"gateway.digest.{name}", found.digest)
    if declared != found.digest:
        has = f"has the digest {found.digest}" if found.digest else "has no digest"
        return Verdict(f"artifact {name}", False, f"{name} {has}, and its tag says {_short(declared)}")
    return Verdict(f"artifact {name}", True, f"{found.uri} {found.digest}".strip())


def _rules(entry: Promotion, version: Version, incumbent: Version | None) -> Iterator[Verdict]:
    for rule in entry.rules:
        try:
            result, values = evaluate(rule, version, incumbent)
        except NotANumber as why:
            yield Verdict(rule.text, False, str(why))
            continue
        alone = incumbent is None and any(metric.incumbent for metric in metrics_in(rule.condition))
        detail = f"{values}; no other version holds {entry.to}" if alone else values
        yield Verdict(rule.text, result, detail.lstrip("; ") or "the rule names no metric")


def evaluate(rule: Rule, version: Version, incumbent: Version | None) -> tuple[bool, str]:
    """Whether a rule holds, and the values that it compared, such as "f1 is 0.86, champion.f1 is 0.85".

    Raises NotANumber when a metric of the rule is missing, NaN or infinite, or when its arithmetic has no result.
    """
    seen: dict[Metric, Decimal] = {}
    for metric in metrics_in(rule.condition):
        if metric.incumbent and incumbent is None:
            continue
        of = incumbent if metric.incumbent else version
        assert of is not None
        seen[metric] = _value(metric, of)
    return holds(rule.condition, seen), ", ".join(f"{metric} is {_number(value)}" for metric, value in seen.items())


def _value(metric: Metric, of: Version) -> Decimal:
    value = of.metrics.get(metric.name)
    if value is None:
        who = f"the incumbent, version {of.version}," if metric.incumbent else f"version {of.version}"
        why = f" ({of.run_missing})" if of.run_missing else ""
        raise NotANumber(f"{who} has no metric {metric.name}{why}")
    if not math.isfinite(value):
        raise NotANumber(f"{metric} is {'NaN' if math.isnan(value) else 'infinite'}")
    return Decimal(repr(value))


def _number(value: float | Decimal) -> str:
    return str(value) if isinstance(value, Decimal) else repr(value)


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
