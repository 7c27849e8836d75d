"""Ask an MLflow at each of the addresses in ADDRESSES, and print what came of it as a JSON object a line."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow_spool.errors import SpoolError, TransportError
from mlflow_spool.records import API, Call
from mlflow_spool.settings import Settings
from mlflow_spool.spool import Spool, system_clock
from mlflow_spool.transport import MlflowServer

CREATE = Call("POST", f"{API}/runs/create", {"experiment_id": "0"})


def outcome(attempt: Callable[[], object], expected: type[Exception]) -> str:
    try:
        attempt()
    except expected:
        return "expected"
    except Exception as error:
        return repr(error)[:300]
    return "expected"


folder = Path(tempfile.mkdtemp())
file = folder / "file.txt"
file.write_text("x")
for address in json.loads(os.environ["ADDRESSES"]):
    server = MlflowServer(address)
    found = {
        "send": outcome(lambda server=server: server.send(CREATE, 0.5), TransportError),
        "upload": outcome(lambda server=server: server.upload("mlflow-artifacts:/1/f", "f", file, 0.5), TransportError),
        "store": outcome(
            lambda server=server, root=f"{address}/root": server.upload(root, "f", file, 0.5), TransportError
        ),
    }
    settings = Settings(folder, probe_timeout=0.5, request_timeout=0.5, settle=0.0)
    spool = Spool(address, server, settings, system_clock(), background=False)
    run: list[str] = []

    def train(spool: Spool = spool, run: list[str] = run) -> None:
        made = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})
        run.append(made["run"]["info"]["run_id"])
        spool.put_file(f"spool-artifacts:/{run[0]}/artifacts", "file.txt", file)

    found["training"] = outcome(train, ArithmeticError)
    found["search"] = outcome(lambda spool=spool: spool.call("POST", f"{API}/runs/search", {}), SpoolError)
    found["finish"] = outcome(lambda spool=spool: spool.finish(0.2), ArithmeticError)
    found["verify"] = outcome(lambda spool=spool: list(spool.certificates()), SpoolError)
    counts = spool.journal.inventory.counts()
    found["kept"] = "expected" if (counts.pending, counts.done) == (2, 0) else repr(counts)
    print(json.dumps({"address": address, **found}))
