"""Ask an MLflow at each of the addresses in ADDRESSES, and print what came of it, a JSON object a line."""

import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow_spool.errors import SpoolError, TransportError
from mlflow_spool.records import API, Call
from mlflow_spool.settings import Settings
from mlflow_spool.spool import Spool, system_clock
from mlflow_spool.transport import MlflowServer

CREATE = {"experiment_id": "0", "start_time": 1}
FOLDER = Path(tempfile.mkdtemp())
FILE = FOLDER / "file.txt"


def outcome(attempt: Callable[[], object], *expected: type[Exception]) -> str:
    """Whether nothing was raised, or what the contract names."""
    try:
        attempt()
    except expected:
        return "expected"
    except Exception as error:
        return repr(error)[:300]
    return "expected"


def asked(address: str) -> dict[str, str]:
    server = MlflowServer(address)
    settings = Settings(FOLDER, probe_timeout=0.5, request_timeout=0.5, settle=0.0)
    spool = Spool(address, server, settings, system_clock(), background=False)

    def train() -> None:
        run = spool.call("POST", f"{API}/runs/create", dict(CREATE))["run"]["info"]["run_id"]
        spool.put_file(f"spool-artifacts:/{run}/artifacts", "file.txt", FILE)

    found = {
        "send": outcome(lambda: server.send(Call("POST", f"{API}/runs/create", CREATE), 0.5), TransportError),
        "upload": outcome(lambda: server.upload("mlflow-artifacts:/1/f", "f", FILE, 0.5), TransportError),
        "store": outcome(lambda: server.upload(f"{address}/root", "f", FILE, 0.5), TransportError),
        "training": outcome(train),
        "search": outcome(lambda: spool.call("POST", f"{API}/runs/search", {}), SpoolError),
        "finish": outcome(lambda: spool.finish(0.2)),
        "verify": outcome(lambda: list(spool.certificates()), SpoolError),
    }
    counts = spool.journal.inventory.counts()
    return found | {"kept": "expected" if (counts.pending, counts.done) == (2, 0) else repr(counts)}


FILE.write_text("x")
addresses = json.loads(os.environ["ADDRESSES"])
with ThreadPoolExecutor(16) as pool:  # A read waits some seconds for an MLflow that may come back.
    for address, found in zip(addresses, pool.map(asked, addresses), strict=True):
        print(json.dumps({"address": address, **found}))
