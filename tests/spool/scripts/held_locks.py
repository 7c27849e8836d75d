"""Training code that holds every lock that it can while the spool's thread delivers: it must not wait for any of them.

MLflow comes back when GATE exists. Prints what the spool's threads did that they must not do.
"""

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
from mlflow.utils import import_hooks

forbidden: list[str] = []
released = threading.Event()


def is_ours() -> bool:
    return threading.current_thread().name.startswith("mlflow-spool")


class Hook:
    """As MLflow's import hook: who imports waits for the thread that holds the lock."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if is_ours():
            forbidden.append(f"import of {name}")
            released.wait(120)


class Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if is_ours():
            forbidden.append(f"log of {record.getMessage()}")


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "import" and is_ours():
        forbidden.append(f"import of {arguments[0]}")


logging.getLogger().addHandler(handler := Handler())
sys.meta_path.insert(0, Hook())
sys.addaudithook(audit)
name = os.environ["EXPERIMENT"]
mlflow.set_experiment(name)
with mlflow.start_run() as run:
    mlflow.log_param("depth", 6)
    mlflow.log_text("no", "notes/why.txt")
    mlflow.MlflowClient().log_param(run.info.run_id, "depth", 7)  # MLflow will refuse it, which the spool reports.
# MLflow's lock, those of the import system's own bookkeeping, and those of logging and its handlers.
module: Any = logging
held = [import_hooks._post_import_hooks_lock, import_hooks._import_error_hooks_lock, module._lock, handler.lock]
for lock in held:
    lock.acquire()
Path(os.environ["GATE"]).touch()
end = time.monotonic() + 60
while not Path(os.environ["DELIVERED"]).exists() and time.monotonic() < end:
    time.sleep(0.05)
delivered = Path(os.environ["DELIVERED"]).exists()
for lock in reversed(held):
    lock.release()
released.set()
print("delivered" if delivered else "hangs", forbidden)
