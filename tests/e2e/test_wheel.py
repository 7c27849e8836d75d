"""The wheel alone, in an empty directory and an empty home, is a whole gateway."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from app import __version__
from app.kit.embedded.processes import free_ports
from tests import plain
from tests.e2e.installed import ROOT, Installed, Shell
from tests.e2e.processes import eventually

VARIABLES = {"AIRFLOW_USERNAME": "gateway", "AIRFLOW_PASSWORD": "secret"}


def call(installed: Installed, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed.bin / "trigger-gateway", *arguments],
        cwd=folder,
        env=installed.environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_holds_the_product_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
    migrations = [f"app/_migrations/versions/{path.name}" for path in (ROOT / "migrations/versions").glob("*.py")]
    assert set(migrations) <= set(names)
    assert {name.split("/")[0] for name in names} == {"app", f"trigger_gateway-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_it_carries_the_readme_and_the_licence(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        info = f"trigger_gateway-{__version__}.dist-info"
        assert wheel.read(f"{info}/METADATA").decode().endswith((ROOT / "README.md").read_text())
        assert wheel.read(f"{info}/licenses/LICENSE").decode() == (ROOT / "LICENSE").read_text()


def test_what_it_requires_is_there_and_fits(installed: Installed) -> None:
    uv = ROOT / ".venv" / "bin" / "uv"
    checked = subprocess.run([uv, "pip", "check", "--python", installed.bin / "python"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_its_version_is_the_one_of_the_source(installed: Installed, tmp_path: Path) -> None:
    assert call(installed, tmp_path, "version").stdout == f"{__version__}\n"


def test_init_migrate_and_serve_work_in_an_empty_directory(installed: Installed, tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    (folder := tmp_path / "folder").mkdir()
    port = str(free_ports(1)[0])
    with Shell(folder, installed.environment(**VARIABLES, HOME=str(home), GATEWAY_PORT=port)) as shell:
        shell.run("trigger-gateway init")
        assert shell.run("trigger-gateway check policy.yaml").startswith("policy.yaml is good")
        assert shell.run("trigger-gateway migrate").startswith("The database is at revision ")
        shell.run("trigger-gateway serve &")
        url = f"http://127.0.0.1:{port}"
        ready = eventually("/readyz to answer", lambda: plain.get(f"{url}/readyz"))
        checks = ready.json()["checks"]
        assert (ready.status_code, checks["postgres"], checks["redis"]) == (200, "ok", "ok")
        assert plain.get(f"{url}/docs").status_code == 200
    assert sorted(path.name for path in folder.iterdir()) == [
        ".gateway",
        "policy.yaml",
        "stderr",
        "trigger-gateway.schema.json",
    ]
    assert list(home.iterdir()) == [], "it writes nothing outside of its data directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve",), "`trigger-gateway init` writes one"),
        (("demo",), "clone the repository and run `make demo`"),
    ],
    ids=["serve without a policy", "demo without the source"],
)
def test_what_it_cannot_do_there_it_says_and_exits_2(
    installed: Installed, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = call(installed, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_serve_names_every_variable_that_the_policy_lacks(installed: Installed, tmp_path: Path) -> None:
    assert call(installed, tmp_path, "init").returncode == os.EX_OK
    done = call(installed, tmp_path, "serve")
    assert done.returncode != os.EX_OK
    assert "AIRFLOW_USERNAME" in done.stderr
    assert "AIRFLOW_PASSWORD" in done.stderr
    assert "Traceback" not in done.stderr
