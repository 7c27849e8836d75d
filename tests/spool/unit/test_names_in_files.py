"""A file that names local ids waits until all of them have real ones: after its upload nobody puts them right."""

from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.records import Answer, new_key
from mlflow_spool.replay import Done, Outcome, Waits
from mlflow_spool.uploads import artifact, send_file

MODEL, RUN, OTHER = (f"spool-{digit * 32}" for digit in "abc")
TEXT = f"run_id: {RUN}\nmodel_id: {MODEL}\nnote: {OTHER}\n"
ROOT = {f"root:{MODEL}": "mlflow-artifacts:/1/models/m-1/artifacts"}
NAMES = ROOT | {MODEL: "m-1", RUN: "r-1"}


class Store:
    """An artifact store that takes everything."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def upload(self, root: str, path: str, file: Path, timeout: float) -> Answer:
        self.taken.append(file.read_text())
        return Answer(200, {})

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "names", "outcome"),
    [
        ("MLmodel", ROOT | {MODEL: "m-1"}, Waits(frozenset({RUN}))),
        ("MLmodel", NAMES, Done({})),
        ("data.txt", ROOT | {MODEL: "m-1"}, Done({})),  # A file of the user's own: nobody writes into it.
    ],
    ids=["one is not known yet", "all are known", "no file of MLflow's"],
)
def test_a_file_goes_when_all_its_own_ids_are_known(
    tmp_path: Path, name: str, names: dict[str, str], outcome: Outcome
) -> None:
    file, store = tmp_path / name, Store()
    file.write_text(TEXT)
    record = artifact(new_key(), f"spool-artifacts:/{MODEL}/artifacts", name, len(TEXT), 0)
    found = send_file(record, file, store, names.get, {MODEL, RUN, f"root:{MODEL}"}.__contains__, 5)
    assert found == outcome
    # OTHER only looks like an id of this machine.
    whole = TEXT.replace(RUN, "r-1").replace(MODEL, "m-1") if name == "MLmodel" else TEXT
    assert store.taken == ([whole] if isinstance(outcome, Done) else [])
