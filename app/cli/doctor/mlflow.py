"""The MLflow of the policy: does it answer, and does it accept our login?"""

from app.cli.doctor.finding import Finding, fail, good
from app.kit.clock import Clock
from app.kit.errors import Rejected, TargetError, Unreachable
from app.kit.http import Http
from app.lineage.mlflow_client import mlflow_client
from app.policy.mlflow import Mlflow


async def examine_mlflow(entry: Mlflow, http: Http, clock: Clock, *, has_login: bool) -> list[Finding]:
    """`has_login`: whether every variable of the policy is set here, so that its login can be tried."""
    client = mlflow_client(entry, http, clock)
    check = "mlflow reachable"
    try:
        if not await client.healthy():
            step = "Correct mlflow.tracking_uri in the policy file, or the proxy between the gateway and MLflow."
            return [fail(check, f"{entry.tracking_uri} answers, but not as MLflow does", step)]
    except TargetError as error:
        return [fail(check, error.detail, "Start MLflow, or correct mlflow.tracking_uri in the policy file.")]
    found = [good(check, entry.tracking_uri)]
    if not has_login:
        return found
    check = "mlflow login"
    try:
        await client.call("GET", "registered-models/search", params={"max_results": 1})
    except (Rejected, Unreachable) as error:
        return [*found, fail(check, error.detail, "Look at MLflow's log.")]
    except TargetError as error:
        return [*found, fail(check, error.detail, "Correct mlflow.auth in the policy file.")]
    return [*found, good(check, "the login is accepted" if entry.auth else "no login is needed")]
