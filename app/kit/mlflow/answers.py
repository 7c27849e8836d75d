"""What MLflow's answers mean: the content of a run or a version, and our error for a refusal. Pure.

Facts from MLflow 3.17.2. Errors are `{"error_code", "message"}`. 404 RESOURCE_DOES_NOT_EXIST means "there is none"; any
other 404 is about the address. A message may quote SQL with values, so we quote only its first line.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from app.kit.clock import Clock
from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import Answer

MAX_SENTENCE: Final = 500  # characters
_BARE_SQL: Final = re.compile(r"[\n\r]|\[SQL|\(Background on")

Json = dict[str, Any]


def tags_of(item: Json) -> dict[str, str]:
    """The tags of a version or a registered model; for a run, pass its `data`. MLflow's JSON has a list of pairs."""
    return _pairs(item.get("tags"))


def params_of(run: Json) -> dict[str, str]:
    """The params of a run, all text."""
    return _pairs((run.get("data") or {}).get("params"))


def metrics_of(run: Json) -> dict[str, float]:
    """The newest value of each metric of a run. JSON has no NaN: MLflow writes "NaN", "Infinity" and "-Infinity"."""
    found: dict[str, float] = {}
    for item in (run.get("data") or {}).get("metrics") or []:
        try:
            found[str(item["key"])] = float(item.get("value", 0.0))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def quoted(value: str) -> str:
    """A value for a filter of MLflow, in quotes. MLflow's grammar has no escape.

    Raises Rejected("bad_request") for a value that holds both kinds of quotes.
    """
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise Rejected("bad_request", "MLflow cannot be asked for a value that holds both kinds of quotes")


def failure(answer: Answer, what: str, *, write: bool, clock: Clock) -> TargetError:
    """The error for an unexpected answer. `what` names the call, as in "GET runs/get". MLflow's words are left out when they
    repeat a secret."""
    body = answer.body if isinstance(answer.body, dict) else {}
    code = str(body.get("error_code", ""))
    detail = f"MLflow answered {answer.status} to {what}: {_message(body, answer.quote) or 'no reason given'}"
    wait = answer.retry_after(clock.now())
    if answer.status == 401:
        return Refused("token_rejected", f"{detail}: check mlflow.auth in the policy file")
    if answer.status == 403:
        return Refused("forbidden", f"{detail}: MLflow does not let us, or does not know this host (--allowed-hosts)")
    if answer.status == 429:
        return Unreachable("busy", detail, retry_after=wait)
    if answer.status >= 500 or answer.status == 408:
        return (Ambiguous if write else Unreachable)("server_error", detail, retry_after=wait)
    if write and 200 <= answer.status < 300:
        return Ambiguous("not_mlflow", f"{what} was not answered with JSON; whether it acted is not known")
    if code == "RESOURCE_DOES_NOT_EXIST":
        return Rejected("missing", detail)
    if code == "RESOURCE_ALREADY_EXISTS":
        return Rejected("exists", detail)
    if code and answer.status in {400, 404, 409, 413, 422}:
        return Rejected("bad_request", detail)
    kind = answer.headers.get("content-type", "no content type").split(";")[0][:60]
    return Refused(
        "not_mlflow",
        f"{what} was answered with {answer.status} ({kind}), which is not MLflow's API: check mlflow.tracking_uri in the "
        "policy file and what stands in between",
    )


def _pairs(items: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items or []:
        if isinstance(item, dict) and isinstance(item.get("key"), str):
            found[item["key"]] = str(item.get("value", ""))
    return found


def _message(body: Json, quote: Callable[[str], str]) -> str:
    text = _BARE_SQL.split(quote(str(body.get("message", ""))), maxsplit=1)[0]
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SENTENCE]).split())
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 1] + "…"
