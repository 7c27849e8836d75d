"""No place for the journal: training works as with the plain client, and the log says once that nothing is kept."""

import json
from pathlib import Path

import pytest

from mlflow_spool.settings import Settings, read_settings
from mlflow_spool.spool import journal_folder
from tests.spool.contents import contents, differences
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


def test_a_script_logs_what_it_logs_without_the_spool_and_is_warned_once(
    environment: Environment, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    file, broken = tmp_path / "file", tmp_path / "broken"
    file.write_text("")
    places = {"a file": file, "below a file": file / "below", "a disk that takes nothing": Path("/proc/nowhere")}
    Site(environment, tmp_path, mlflow_server.uri).train("text.py", EXPERIMENT="no-place-plain", CASES="[null]")
    cases = json.dumps([str(place) for place in places.values()] + [None, str(broken)])
    # None: a user without a home. `broken` has a journal that is no database.
    site = Site(environment, tmp_path, f"spool+{mlflow_server.uri}")
    _break(broken, mlflow_server.uri)
    printed = site.train("text.py", EXPERIMENT="no-place", CASES=cases)
    assert [line for line in printed.splitlines() if line.startswith("warnings")] == ["warnings 1"] * 5
    (expected,) = contents(mlflow_server, "no-place-plain")["runs"]
    found = contents(mlflow_server, "no-place")["runs"]
    assert len(found) == 5
    for run in found:
        assert differences(run, expected) == []


def _break(folder: Path, uri: str) -> None:
    place = journal_folder(Settings(folder), uri)
    place.mkdir(parents=True)
    (place / "journal.db").write_text("this is no database, and long enough to be read as one" * 100)


def test_a_user_without_a_home_has_a_place_that_no_folder_can_be_made_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(NotADirectoryError):
        read_settings({}).folder.mkdir(parents=True)
