"""Upload a file as a thread of the spool does it to a store before which MLflow does not stand: by the other process."""

import os
from pathlib import Path

from mlflow_spool.errors import NoAnswer
from mlflow_spool.helper import Helper

helper, folder = Helper("http://127.0.0.1:9"), Path(os.environ["FOLDER"])
(folder / "file.txt").write_text("content")
print(helper.store(f"file://{folder}/root", "deep/file.txt", folder / "file.txt").status)
try:
    helper.store("nosuch://bucket/root", "file.txt", folder / "file.txt")
except NoAnswer:
    print("no answer")
print(helper.store(f"file://{folder}/root", "again.txt", folder / "file.txt").status)
