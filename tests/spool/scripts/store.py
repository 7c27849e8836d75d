"""Files go to stores that are not behind MLflow: one that takes them, one that nobody knows, and one that hangs. At the end
an upload to a store that hangs is under way.
"""

import os
import socket
import threading
from pathlib import Path

from mlflow_spool.errors import NoAnswer
from mlflow_spool.stores import Stores

stores, folder = Stores("http://127.0.0.1:9"), Path(os.environ["FOLDER"])
(folder / "file.txt").write_text("content")


def put(root: str, path: str, limit: float = 120.0) -> None:
    try:
        print(stores.put(root, path, folder / "file.txt", limit).status)
    except NoAnswer as error:
        print("no answer in time" if "no answer in time" in str(error) else "no answer")


good = f"file://{folder}/root"
put(good, "deep/file.txt")
print([entry["path"] for entry in stores.files(good, "deep").body["files"]])
print(stores.fetch(good, "deep/file.txt", folder / "copy.txt").status, (folder / "copy.txt").read_text())
put("nosuch://bucket/root", "file.txt")
silent = socket.create_server(("127.0.0.1", 0))
silent_root = f"http://127.0.0.1:{silent.getsockname()[1]}/root"
put(silent_root, "file.txt", 1.0)
put(silent_root, "file.txt")
put(good, "again.txt")
other = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=put, args=(f"http://127.0.0.1:{other.getsockname()[1]}/root", "file.txt"), daemon=True).start()
other.accept()
