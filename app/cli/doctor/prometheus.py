"""The Prometheus of each `confirm`: does it answer a query, and does it accept our login?"""

from app.cli.doctor.finding import Finding, fail, good, warn
from app.groups.prometheus import Outcome, Prometheus
from app.kit.clock import Clock
from app.kit.http import Http
from app.policy.schema import Policy

#: Any Prometheus answers it with a 1, whatever series it has.
QUERY = "vector(1)"


async def examine_prometheus(policy: Policy, http: Http, clock: Clock, *, has_login: bool) -> list[Finding]:
    """`has_login`: whether every variable of the policy is set here, so that logins can be tried."""
    findings: list[Finding] = []
    for route in policy.routes:
        if route.confirm is None:
            continue
        check = f"confirm of route {route.name}"
        if not has_login:
            step = "Set the variables that are named above, and run `doctor` again."
            findings.append(warn(check, "not checked: variables of the policy are not set here", step))
            continue
        outcome, confirmation = await Prometheus(http, clock).ask(route.confirm, QUERY)
        if outcome is Outcome.YES:
            findings.append(good(check, f"{route.confirm.prometheus} answers a query"))
        else:
            step = f"Start Prometheus, or correct `confirm` of the route {route.name}: address, auth, headers, ca_file."
            findings.append(fail(check, confirmation.detail, step))
    return findings
