"""The manifests of examples/kubernetes hold together: no cluster is needed to follow their references."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.bootstrap.settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "examples/kubernetes"
#: kind -> the API that has it.
KINDS = {
    "Cluster": "postgresql.cnpg.io/v1",
    "Database": "postgresql.cnpg.io/v1",
    "ScheduledBackup": "postgresql.cnpg.io/v1",
    "ObjectStore": "barmancloud.cnpg.io/v1",
    "Deployment": "apps/v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}
DOCUMENTS: dict[tuple[str, str], dict[str, Any]] = {
    (document["kind"], document["metadata"]["name"]): document
    for file in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
}
DEPLOYMENTS = [document for (kind, _), document in DOCUMENTS.items() if kind == "Deployment"]
by_name = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda document: document["metadata"]["name"])


def containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    pod = deployment["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_every_kind_is_of_the_api_that_has_it() -> None:
    assert {kind: document["apiVersion"] for (kind, _), document in DOCUMENTS.items()} == KINDS


def test_no_two_documents_have_a_name() -> None:
    count = sum(1 for file in FOLDER.glob("*.yaml") for _ in yaml.safe_load_all(file.read_text()))
    assert count == len(DOCUMENTS)


def test_a_commit_waits_for_a_standby_and_the_archive_has_its_store() -> None:
    cluster = DOCUMENTS["Cluster", "postgres"]["spec"]
    assert cluster["instances"] >= 3
    assert cluster["affinity"] == {"podAntiAffinityType": "required", "topologyKey": "kubernetes.io/hostname"}
    assert cluster["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    (plugin,) = cluster["plugins"]
    assert plugin["isWALArchiver"]
    assert ("ObjectStore", plugin["parameters"]["barmanObjectName"]) in DOCUMENTS
    for kind, name in (("Database", "mlflow"), ("ScheduledBackup", "postgres-nightly")):
        assert DOCUMENTS[kind, name]["spec"]["cluster"]["name"] == "postgres"
    assert len(DOCUMENTS["ScheduledBackup", "postgres-nightly"]["spec"]["schedule"].split()) == 6


def test_a_restore_reads_the_archive_that_is_written() -> None:
    spec = DOCUMENTS["Cluster", "postgres-restored"]["spec"]
    (external,) = spec["externalClusters"]
    assert spec["bootstrap"]["recovery"]["source"] == external["name"]
    written = DOCUMENTS["Cluster", "postgres"]["spec"]["plugins"][0]["parameters"]["barmanObjectName"]
    assert external["plugin"]["parameters"] == {"barmanObjectName": written, "serverName": "postgres"}


def test_a_restored_cluster_has_the_secret_by_which_the_gateway_finds_it() -> None:
    """The operator makes one only for an application's database that is named (its docs: recovery, application database)."""
    made = DOCUMENTS["Cluster", "postgres"]["spec"]["bootstrap"]["initdb"]
    recovery = DOCUMENTS["Cluster", "postgres-restored"]["spec"]["bootstrap"]["recovery"]
    assert {name: recovery.get(name) for name in ("database", "owner")} == {
        name: made.get(name) for name in ("database", "owner")
    }


@by_name
def test_a_deployment_selects_its_own_pods_and_can_lose_one(deployment: dict[str, Any]) -> None:
    spec = deployment["spec"]
    assert spec["replicas"] >= 2
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert spread["labelSelector"] == spec["selector"]
    budget = DOCUMENTS["PodDisruptionBudget", deployment["metadata"]["name"]]["spec"]
    assert (budget["minAvailable"], budget["selector"]) == (1, spec["selector"])
    service = DOCUMENTS["Service", deployment["metadata"]["name"]]["spec"]
    assert service["selector"] == spec["selector"]["matchLabels"]
    ports = {port["containerPort"] for container in containers(deployment) for port in container.get("ports", [])}
    assert ports == {port["port"] for port in service["ports"]}
    assert all("readinessProbe" in container for container in spec["template"]["spec"]["containers"])


@by_name
def test_a_pod_has_no_right_that_it_does_not_need(deployment: dict[str, Any]) -> None:
    """As the level `restricted` of the Pod Security Standards asks, with a read-only disk and no token of Kubernetes."""
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] >= 10_000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(deployment):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "limits" in container.get("resources", {"limits": {}})
        assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@by_name
def test_only_named_pods_reach_a_deployment(deployment: dict[str, Any]) -> None:
    spec = DOCUMENTS["NetworkPolicy", deployment["metadata"]["name"]]["spec"]
    assert spec["podSelector"] == deployment["spec"]["selector"]
    assert "Ingress" in spec["policyTypes"]
    service = DOCUMENTS["Service", deployment["metadata"]["name"]]["spec"]
    for rule in spec["ingress"]:
        assert rule["from"], "an empty list is everybody"
        assert all(set(peer) == {"podSelector"} and peer["podSelector"]["matchLabels"] for peer in rule["from"])
        assert [port["port"] for port in rule["ports"]] == [port["port"] for port in service["ports"]]


def test_the_gateway_calls_no_address_that_gives_credentials_of_a_node() -> None:
    (rule,) = DOCUMENTS["NetworkPolicy", "gateway"]["spec"]["egress"]
    assert {address for peer in rule["to"] for address in peer["ipBlock"]["except"]} >= {"169.254.0.0/16"}


def test_each_program_has_a_user_of_its_own_in_postgres() -> None:
    (role,) = DOCUMENTS["Cluster", "postgres"]["spec"]["managed"]["roles"]
    owners = [DOCUMENTS["Cluster", "postgres"]["spec"]["bootstrap"]["initdb"]["owner"], role["name"]]
    assert owners == ["gateway", DOCUMENTS["Database", "mlflow"]["spec"]["owner"]]
    for name in ("mlflow", "mlflow-read"):
        (container,) = containers(DOCUMENTS["Deployment", name])
        secrets = [entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "valueFrom" in entry]
        assert secrets == [role["passwordSecret"]["name"]]


@by_name
def test_no_service_of_the_namespace_sets_a_variable_of_a_pod(deployment: dict[str, Any]) -> None:
    """A Service named `gateway` would set GATEWAY_PORT to an address, one named `mlflow` would set MLFLOW_PORT."""
    assert deployment["spec"]["template"]["spec"].get("enableServiceLinks") is False


@by_name
def test_a_volume_that_is_mounted_is_there(deployment: dict[str, Any]) -> None:
    volumes = {volume["name"] for volume in deployment["spec"]["template"]["spec"].get("volumes", [])}
    mounted = {mount["name"] for container in containers(deployment) for mount in container.get("volumeMounts", [])}
    assert mounted == volumes


def test_a_gateway_variable_is_a_setting() -> None:
    known = {f"GATEWAY_{field.upper()}" for field in Settings.model_fields}
    named = {
        entry["name"] for container in containers(DOCUMENTS["Deployment", "gateway"]) for entry in container["env"]
    }
    assert {name for name in named if name.startswith("GATEWAY_")} <= known


@pytest.mark.parametrize("name", ["mlflow", "mlflow-read"])
def test_mlflow_has_as_many_workers_as_its_limit_holds(name: str) -> None:
    """A worker had 262 MB; the default are four."""
    (container,) = containers(DOCUMENTS["Deployment", name])
    assert "--workers=2" in container["args"]
    assert container["resources"]["limits"]["memory"] == "1Gi"


def test_the_secret_of_the_buckets_is_told() -> None:
    """What the manifests take from `s3` stands in the comment that says what the secret holds."""
    text = (FOLDER / "postgres.yaml").read_text()
    credentials = DOCUMENTS["ObjectStore", "postgres-backups"]["spec"]["configuration"]["s3Credentials"]
    (line,) = [line for line in text.splitlines() if line.startswith("# The secret `s3` holds")]
    assert {entry["name"] for entry in credentials.values()} == {"s3"}
    assert all(entry["key"] in line for entry in credentials.values())


def test_mlflow_writes_through_the_primary_and_reads_from_the_standbys() -> None:
    uris = {
        name: entry["value"]
        for name in ("mlflow", "mlflow-read")
        for entry in containers(DOCUMENTS["Deployment", name])[0]["env"]
        if entry["name"] == "MLFLOW_BACKEND_STORE_URI"
    }
    assert [uri.partition("@")[2] for uri in uris.values()] == ["postgres-rw:5432/mlflow", "postgres-ro:5432/mlflow"]
