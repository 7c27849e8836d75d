"""The entries of `promotions:`: reads their rules, and finds problems between entries."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from app.policy.file.document import Document
from app.policy.file.entries import read_list
from app.policy.file.problems import Path, Problem
from app.policy.language.expressions import Rule, RuleError, parse_rule
from app.policy.language.variables import Unexpanded
from app.policy.promotions import Promotion


def read_promotions(document: Document, problems: list[Problem]) -> tuple[Promotion, ...]:
    """Every entry that is valid."""

    def with_rules(path: Path, entry: Mapping[str, JsonValue]) -> dict[str, object]:
        if "rules" not in entry:
            return dict(entry)
        return {**entry, "rules": _read_rules(document, (*path, "rules"), entry["rules"], problems)}

    return read_list(Promotion, "promotions", document, problems, prepare=with_rules)


def promotion_problems(document: Document) -> Iterator[Problem]:
    """Every problem between entries, and with `mlflow`. It reads the plain values."""
    top = document.value if isinstance(document.value, dict) else {}
    entries = top.get("promotions")
    seen: set[tuple[JsonValue, JsonValue]] = set()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        path: Path = ("promotions", index)
        model, to = entry.get("model"), entry.get("to")
        if not isinstance(model, str) or not isinstance(to, str):
            continue
        if (model, to) in seen:
            yield document.problem((*path, "to"), f"another entry has the model {model!r} and the alias {to!r} already")
        seen.add((model, to))
        if entry.get("registry", "mlflow") == "mlflow" and "mlflow" not in top:
            yield document.problem((*path, "registry"), "the registry is MLflow, but the policy has no `mlflow:`")
        if entry.get("requires") == to:
            yield document.problem((*path, "requires"), "a version cannot hold the alias before it gets it")


def _read_rules(document: Document, path: Path, value: JsonValue, problems: list[Problem]) -> list[Rule]:
    if not isinstance(value, list):
        problems.append(document.problem(path, "must be a list of rules, such as ['f1 >= 0.80']"))
        return []
    rules: list[Rule] = []
    for index, text in enumerate(value):
        if not isinstance(text, str):
            problems.append(document.problem((*path, index), "must be text, such as 'f1 >= 0.80'"))
        elif not isinstance(text, Unexpanded):
            try:
                rules.append(parse_rule(text))
            except RuleError as error:
                problems.append(document.problem((*path, index), error.message, offset=error.offset))
    return rules
