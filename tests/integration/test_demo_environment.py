"""An environment is installed once. Requirements without a package stand for Airflow's: nothing is fetched."""

import asyncio
from pathlib import Path

import pytest

from demo.environment import AIRFLOW, MLFLOW, Environment, is_installed, repository
from demo.environment import install as install_environment
from demo.processes import Say, ServerError

NOTHING = "# no package\n"


def install(folder: Path, requirements: Path, say: Say = print) -> Path:
    return asyncio.run(install_environment("Airflow", folder, requirements, say))


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    file = tmp_path / "requirements.txt"
    file.write_text(NOTHING)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "airflow"


def test_installed_it_has_a_python_and_is_known_as_installed(folder: Path, requirements: Path) -> None:
    messages: list[str] = []
    assert not is_installed(folder, requirements)
    environment = install(folder, requirements, messages.append)
    assert (environment / "bin" / "python").exists()
    assert is_installed(folder, requirements)
    assert messages[0].startswith(f"Installing Airflow into {environment}")


def test_what_is_there_is_used_again_in_silence(folder: Path, requirements: Path) -> None:
    environment = install(folder, requirements)
    (environment / "ours").touch()
    messages: list[str] = []
    assert install(folder, requirements, messages.append) == environment
    assert (environment / "ours").exists()
    assert not messages


def test_other_requirements_are_installed_anew(folder: Path, requirements: Path) -> None:
    environment = install(folder, requirements)
    (environment / "ours").touch()
    requirements.write_text("# another version\n")
    assert not is_installed(folder, requirements)
    install(folder, requirements)
    assert not (environment / "ours").exists()


def test_a_failed_installation_is_told_and_not_taken_for_one(folder: Path, requirements: Path) -> None:
    requirements.write_text("/no/such/directory\n")
    with pytest.raises(ServerError, match=r"(?s)uv pip install ended with exit code.*install\.log.*no/such/directory"):
        install(folder, requirements)
    assert not is_installed(folder, requirements)
    requirements.write_text(NOTHING)
    install(folder, requirements)
    assert is_installed(folder, requirements)


async def test_two_that_come_at_once_install_once(folder: Path, requirements: Path) -> None:
    messages: list[str] = []
    both = await asyncio.gather(
        *(install_environment("Airflow", folder, requirements, messages.append) for _ in range(2))
    )
    assert both[0] == both[1]
    assert len([line for line in messages if line.startswith("Installing")]) == 1


@pytest.mark.parametrize("which", [AIRFLOW, MLFLOW], ids=lambda which: which.name)
def test_the_checkout_has_what_the_demo_needs(which: Environment) -> None:
    assert which.requirements(repository()).is_file()
    assert (repository() / "examples" / "dags" / "retrain_model.py").is_file()
