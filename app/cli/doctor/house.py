"""Our side: the policy and its values, the tokens, and the gateway itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.cli.doctor.finding import Finding, fail, good, warn
from app.kit.errors import TargetError, UsageError
from app.kit.http import Http
from app.policy.file.load import Policy, PolicyError, load_policy
from app.web.security import is_loopback
from app.web.tokens import Token, read_file


@dataclass(frozen=True, slots=True)
class PolicyRead:
    """The policy as far as it can be read; `complete` is False while a ${VARIABLE} has no value."""

    findings: tuple[Finding, ...]
    policy: Policy | None = None
    complete: bool = False


def examine_policy(path: Path) -> PolicyRead:
    """Read the policy twice: without the ${...} values, as `check` does, and with them, as `serve` does."""
    if not path.is_file():
        step = "Run `trigger-gateway init`, or set GATEWAY_POLICY_FILE."
        return PolicyRead((fail("policy", f"there is no file {path}", step),))
    try:
        policy = load_policy(path, require_env=False)
    except PolicyError as error:
        step = f"Correct the line; `trigger-gateway check {path}` looks again."
        return PolicyRead(tuple(fail("policy", str(problem), step) for problem in error.problems))
    findings = [good("policy", f"{path}: {len(policy.routes)} route(s), hash {policy.hash}")]
    findings += [warn("policy", str(warning), "Change it if you did not mean that.") for warning in policy.warnings]
    try:
        policy = load_policy(path)
    except PolicyError as error:
        step = "Set the variable where `serve` runs, and here."
        missing = [fail("policy values", str(problem), step) for problem in error.problems]
        return PolicyRead((*findings, *missing), policy)
    return PolicyRead((*findings, good("policy values", "every ${...} is set")), policy, complete=True)


def examine_tokens(path: Path, host: str, now: datetime, *, named: bool = False) -> tuple[list[Finding], bool]:
    """What the tokens file allows, and whether callers need a token. named: GATEWAY_TOKENS_FILE names it."""
    check = "tokens"
    try:
        file = read_file(path)
    except UsageError as error:
        return [fail(check, str(error), "Correct that, then start the gateway again.")], True
    faults = [fail(check, fault, "Correct or remove that line of the file.") for fault in file.faults]
    if file.tokens or faults:
        return [*faults, *(_tokens(check, file.tokens, path, now) if file.tokens else ())], True
    if named:
        cause = f"GATEWAY_TOKENS_FILE names {path}, which holds no token: `serve` refuses that"
        return [fail(check, cause, "Run `trigger-gateway token create --scope ingest`, or unset the setting.")], True
    make = "Run `trigger-gateway token create --scope ingest`"
    if is_loopback(host):
        return [good(check, f"there are none, and none is needed: only this machine can reach {host}")], False
    cause = f"there are none, and other machines can reach GATEWAY_HOST={host}: `serve` refuses that"
    return [fail(check, cause, f"{make}, or set GATEWAY_HOST=127.0.0.1.")], False


def _tokens(check: str, tokens: Sequence[Token], path: Path, now: datetime) -> list[Finding]:
    findings = []
    good_ones = [token for token in tokens if not token.expired(now)]
    expired = [token.name for token in tokens if token.expired(now)]
    if not any(token.scopes & {"ingest", "admin"} for token in good_ones):
        cause = f"no token in {path} may send alerts: the gateway answers every webhook 401 or 403"
        findings.append(fail(check, cause, "Run `trigger-gateway token create --scope ingest`."))
    else:
        findings.append(good(check, f"{len(good_ones)} in {path}"))
    if expired:
        step = "Make a new one with `trigger-gateway token create`, and delete the line of the old one."
        findings.append(warn(check, f"expired: {', '.join(expired)}", step))
    return findings


async def examine_gateway(url: str, http: Http) -> Finding:
    """Whether the gateway runs. If not, that is only a warning: people ask the doctor before the first start as well."""
    check = "gateway"
    try:
        answer = await http.request("GET", f"{url}/readyz")
    except TargetError as error:
        step = "Run `trigger-gateway serve`; if it runs elsewhere, set GATEWAY_URL."
        return warn(check, f"not running here: {error.detail}", step)
    status = answer.body.get("status") if isinstance(answer.body, dict) else None
    if answer.status == 200 and status == "ok":
        return good(check, f"{url} is ready")
    if status in {"degraded", "failing"}:
        level = warn if status == "degraded" else fail
        return level(check, f"{url} is {status}", "See `checks` of GET /readyz with a token of scope read.")
    step = "Set GATEWAY_PORT to a free port, or GATEWAY_URL to the URL of the gateway."
    return fail(check, f"{url} answers {answer.status}, but it is not the gateway", step)
