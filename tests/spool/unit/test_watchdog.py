"""MLFLOW_SPOOL_DEBUG=1: a call that takes long shows where every thread is, once; others show nothing."""

import subprocess
import sys

SCRIPT = """
import threading, time
from mlflow_spool.watchdog import Watchdog

dog = Watchdog(limit=0.3)
with dog.watching("GET /quick"):
    pass
def hang() -> None:
    with dog.watching("GET /slow"), dog.watching("GET /within"):
        time.sleep(2.5)
worker = threading.Thread(target=hang, name="training")
worker.start()
worker.join()
"""


def test_a_call_that_takes_long_shows_once_where_every_thread_is() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    shown = done.stderr
    assert shown.count("GET /slow takes more than 0.3 seconds") == 1, shown
    assert ("training" in shown, "in hang" in shown, "mlflow-spool-watchdog" in shown) == (True, True, True), shown
    assert "/quick" not in shown
    assert "/within" not in shown
