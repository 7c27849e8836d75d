"""Files go by the process for our thread to stores: one that takes them, one that nobody knows, and one that hangs."""

import os
import socket
import time
from pathlib import Path

from mlflow_spool.errors import NoAnswer
from mlflow_spool.helper import Helper

helper, folder = Helper("http://127.0.0.1:9"), Path(os.environ["FOLDER"])
(folder / "file.txt").write_text("content")


def put(root: str, path: str, limit: float = 60.0) -> None:
    began = time.monotonic()
    try:
        print(helper.store(root, path, folder / "file.txt", limit).status)
    except NoAnswer:
        print("no answer" if time.monotonic() - began < 30 else "late")


put(f"file://{folder}/root", "deep/file.txt")
put("nosuch://bucket/root", "file.txt")
with socket.socket() as silent:
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    put(f"http://127.0.0.1:{silent.getsockname()[1]}/root", "file.txt", 1.0)
