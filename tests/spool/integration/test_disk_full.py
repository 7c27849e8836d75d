"""A disk that is full: a clear error, training goes on, and what was kept is delivered. On a real, small file system where
this may mount one; that a record which cannot be written is told is tested everywhere."""

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_spool.errors import SpoolFull
from mlflow_spool.records import API
from mlflow_spool.settings import SPARE
from mlflow_spool.spool import Spool
from tests.e2e.processes import lacking
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, spool_on

pytestmark = pytest.mark.xdist_group("mlflow")
SIZE = 24 * 1024**2  # bytes
ROOM = 2000  # tags of eight kilobytes are too many


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, soon full."""
    (folder := tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        lacking("only root may mount a file system; the test of files that may not grow runs everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Path]:
    """A folder in which no file grows beyond six megabytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 1024**2, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def tag(spool: Spool, run: str, number: int) -> None:
    body = {"run_id": run, "key": f"k{number:05d}", "value": "x" * 8000}
    spool.call("POST", f"{API}/runs/set-tag", body)


def start(spool: Spool) -> str:
    body = {"experiment_id": "0", "run_name": "run", "start_time": 1}
    return str(spool.call("POST", f"{API}/runs/create", body)["run"]["info"]["run_id"])


def test_a_full_disk_is_told_training_goes_on_and_what_was_kept_arrives_once(
    mounted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, mounted / "spool", clock, spare=SPARE)
    run = start(spool)
    for number in range(ROOM):
        tag(spool, run, number)
    warnings = [record.getMessage() for record in caplog.records if "keeps no record" in record.getMessage()]
    assert "could not be written" in warnings[0]
    kept = spool.journal.inventory.counts().pending
    assert 100 < kept < ROOM
    assert len(warnings) == ROOM + 1 - kept
    server.plan = never
    assert spool.finish(3600, patient=True) == 0
    (there,) = server.runs.values()
    assert len(there["tags"]) == kept  # The tags and the run's own key, for as many tags and its creation.
    # There is room again.
    server.plan = always(Fault.REFUSE)
    tag(spool, run, 9999)
    server.plan = never
    assert spool.finish(3600, patient=True) == 0
    assert "k09999" in there["tags"]
    spool.journal.close()


def test_a_strict_spool_that_cannot_write_raises(limited: Path) -> None:
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, limited / "spool", ManualClock(), strict=True)
    run = start(spool)

    def fill() -> None:
        for number in range(ROOM):
            tag(spool, run, number)

    with pytest.raises(SpoolFull, match="could not be written"):
        fill()
    spool.journal.close()


def test_a_file_that_finds_no_room_is_told_and_leaves_nothing_half_there(
    mounted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, mounted / "spool", clock, spare=SPARE)
    run = start(spool)
    big = tmp_path / "model.bin"
    big.write_bytes(b"x" * (2 * SIZE))
    spool.put_file(f"spool-artifacts:/{run}/artifacts", "model.bin", big)
    assert "does not keep the artifact model.bin" in caplog.text
    tag(spool, run, 1)
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert "k00001" in there["tags"]
    assert list((mounted / "spool").glob("*/files/*")) == []
    spool.journal.close()
