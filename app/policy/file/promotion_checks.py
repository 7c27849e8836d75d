"""The entries of `promotions:`: reads their rules and matchers, and finds problems between entries."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import JsonValue

from app.policy.file.document import Document
from app.policy.file.entries import read_list, read_match
from app.policy.file.problems import Path, Problem
from app.policy.language.expressions import Rule, RuleError, parse_rule
from app.policy.language.templates import TemplateError, of_version
from app.policy.language.variables import Unexpanded
from app.policy.promotions import Promotion

#: What makes an RE2 one of many names. A dot alone is most often meant as a dot.
_MANY: Final = re.compile(r"[\\+*?()\[\]{}^$|]")


def read_promotions(document: Document, problems: list[Problem]) -> tuple[Promotion, ...]:
    """Every entry that is valid."""

    def read(path: Path, entry: Mapping[str, JsonValue]) -> dict[str, object]:
        known: dict[str, object] = dict(entry)
        if "rules" in entry:
            known["rules"] = _read_rules(document, (*path, "rules"), entry["rules"], problems)
        probation = entry.get("probation")
        if isinstance(probation, dict) and "match" in probation:
            where = (*path, "probation", "match")
            known["probation"] = {**probation, "match": read_match(document, where, probation["match"], problems)}
            if probation["match"] == []:
                problems.append(document.problem(where, "is empty: every alert would speak against the version"))
        return known

    return read_list(Promotion, "promotions", document, problems, prepare=read)


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
        yield from _placeholders(document, (*path, "probation", "group"), entry.get("probation"))


def promotion_warnings(document: Document, promotions: tuple[Promotion, ...]) -> Iterator[Problem]:
    """What is allowed but probably not meant, in a file without errors."""
    for index, entry in enumerate(promotions):
        path: Path = ("promotions", index, "probation")
        if entry.probation is None:
            continue
        if entry.mode == "shadow":
            yield document.problem(path, "an entry in shadow mode promotes nothing, so no version is on probation")
        names_it = any("model" in of_version(value) for value in entry.probation.group.values())
        if _MANY.search(entry.model) and "${" not in entry.model and not names_it:
            sentence = "an alert of one model speaks against every model of this entry"
            yield document.problem(path, f"{sentence}; group: {{model: '{{{{version.model}}}}'}} tells them apart")


def _placeholders(document: Document, path: Path, probation: JsonValue) -> Iterator[Problem]:
    group = probation.get("group") if isinstance(probation, dict) else None
    for label, value in group.items() if isinstance(group, dict) else ():
        if isinstance(value, str):
            try:
                of_version(value)
            except TemplateError as error:
                yield document.problem((*path, label), str(error), offset=error.offset)


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
