"""Two real registries behind one set of words: a model version with its papers, and who holds the mark."""

import secrets
from typing import Any, Protocol

import asyncpg
import boto3
import httpx

from tests.spool.mlflow import MlflowServer

#: The papers of a good version. Of a test's own: None leaves one out.
GOOD: dict[str, Any] = {"depth": "3", "commit": "abc", "data": True, "artifact": True, "ready": True}


class Site(Protocol):
    """A registry as the people see it who train models."""

    name: str

    async def publish(self, model: str, metrics: dict[str, float], **papers: Any) -> str:
        """A version with these metrics and papers; its number."""
        ...

    async def holder(self, model: str, mark: str = "champion") -> str | None: ...

    async def seize(self, model: str, version: str, mark: str = "champion") -> None:
        """Somebody gives the mark by hand, past the gate."""
        ...

    async def spoil(self, model: str, version: str) -> None:
        """The version is not READY any more."""
        ...


class MlflowSite:
    name = "mlflow"

    def __init__(self, server: MlflowServer) -> None:
        self._server = server
        self.uri = server.uri

    async def publish(self, model: str, metrics: dict[str, float], **papers: Any) -> str:
        papers = GOOD | papers
        call = self._server.call
        made = call("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]
        run = made["run_id"]
        batch: dict[str, Any] = {
            "run_id": run,
            "metrics": [{"key": k, "value": _json(v), "timestamp": 1, "step": 0} for k, v in metrics.items()],
            "params": [{"key": "depth", "value": papers["depth"]}] if papers["depth"] else [],
            "tags": [{"key": "commit", "value": papers["commit"]}] if papers["commit"] else [],
        }
        call("POST", "runs/log-batch", batch)
        if papers["data"]:
            data = {"name": "churn", "digest": "d1", "source_type": "s3", "source": '{"uri": "s3://data/churn"}'}
            context = [{"key": "mlflow.data.context", "value": "training"}]
            call("POST", "runs/log-inputs", {"run_id": run, "datasets": [{"tags": context, "dataset": data}]})
        if papers["artifact"]:
            folder = self._server.artifacts / made["experiment_id"] / run / "artifacts" / "model"
            folder.mkdir(parents=True)
            (folder / "MLmodel").write_text("flavors: {}")
        if not _exists(self._server, model):
            call("POST", "registered-models/create", {"name": model})
        body = {"name": model, "run_id": run, "source": f"{made['artifact_uri']}/model"}
        version: str = call("POST", "model-versions/create", body)["model_version"]["version"]
        if not papers["ready"]:
            await self.spoil(model, version)
        return version

    async def spoil(self, model: str, version: str) -> None:
        # No request of MLflow's makes one.
        conn = await asyncpg.connect(self._server.database)
        statement = "UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE name = $1 AND version = $2"
        await conn.execute(statement, model, int(version))
        await conn.close()

    async def holder(self, model: str, mark: str = "champion") -> str | None:
        found = self._server.call("GET", f"registered-models/get?name={model}")["registered_model"]
        return next((held["version"] for held in found.get("aliases", []) if held["alias"] == mark), None)

    async def seize(self, model: str, version: str, mark: str = "champion") -> None:
        self._server.call("POST", "registered-models/alias", {"name": model, "alias": mark, "version": version})


class SagemakerSite:
    name = "sagemaker"

    def __init__(self) -> None:
        self._sagemaker = boto3.client("sagemaker")
        self._s3 = boto3.client("s3")
        self._bucket = f"models-{secrets.token_hex(4)}"
        self._s3.create_bucket(Bucket=self._bucket)

    async def publish(self, model: str, metrics: dict[str, float], **papers: Any) -> str:
        papers = GOOD | papers
        if not self._sagemaker.list_model_package_groups(NameContains=model)["ModelPackageGroupSummaryList"]:
            self._sagemaker.create_model_package_group(ModelPackageGroupName=model)
        key = f"{secrets.token_hex(6)}/model.tar.gz"
        if papers["artifact"]:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"model", ChecksumAlgorithm="SHA256")
        metadata = {name: str(value) for name, value in metrics.items()}
        metadata |= {name: papers[name] for name in ("depth", "commit") if papers[name]}
        if papers["data"]:
            metadata["input.training"] = "churn d1 s3://data/churn"
        container = {"Image": "image", "ModelDataUrl": f"s3://{self._bucket}/{key}"}
        made = self._sagemaker.create_model_package(
            ModelPackageGroupName=model,
            InferenceSpecification={
                "Containers": [container],
                "SupportedContentTypes": [],
                "SupportedResponseMIMETypes": [],
            },
            ModelApprovalStatus="PendingManualApproval",
            CustomerMetadataProperties=metadata,
        )
        if not papers["ready"]:
            _backend(made["ModelPackageArn"]).model_package_status = "Pending"  # No call of SageMaker's makes one.
        return str(self.package(made["ModelPackageArn"])["ModelPackageVersion"])

    async def spoil(self, model: str, version: str) -> None:
        _backend(self.packages(model)[int(version) - 1]["ModelPackageArn"]).model_package_status = "Failed"

    def package(self, arn: str) -> dict[str, Any]:
        found: dict[str, Any] = self._sagemaker.describe_model_package(ModelPackageName=arn)
        return found

    def packages(self, model: str) -> list[dict[str, Any]]:
        """Every package of a group, the oldest first."""
        listed = self._sagemaker.list_model_packages(ModelPackageGroupName=model)["ModelPackageSummaryList"]
        return sorted((self.package(o["ModelPackageArn"]) for o in listed), key=lambda p: int(p["ModelPackageVersion"]))

    async def holder(self, model: str, mark: str = "champion") -> str | None:
        approved = [package for package in self.packages(model) if package["ModelApprovalStatus"] == "Approved"]
        holding = [o for o in approved if mark in o["CustomerMetadataProperties"].get("gateway.alias", "").split()]
        return str(holding[-1]["ModelPackageVersion"]) if holding else None

    async def seize(self, model: str, version: str, mark: str = "champion") -> None:
        package = self.packages(model)[int(version) - 1]
        self._sagemaker.update_model_package(
            ModelPackageArn=package["ModelPackageArn"],
            ModelApprovalStatus="Approved",
            CustomerMetadataProperties=package["CustomerMetadataProperties"] | {"gateway.alias": mark},
        )


class Through:
    """For World: requests to this host leave for the network."""

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport()


def _backend(arn: str) -> Any:
    from moto.sagemaker.models import sagemaker_backends

    for account in sagemaker_backends.values():
        for backend in account.values():
            for package in backend.model_packages.values():
                if package.arn == arn:
                    return package
    raise AssertionError(arn)


def _exists(server: MlflowServer, model: str) -> bool:
    found = server.call("GET", f"registered-models/search?filter=name%3D%27{model}%27")
    return bool(found.get("registered_models"))


def _json(value: float) -> float | str:
    return "NaN" if value != value else value
