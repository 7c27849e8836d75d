"""Uses of MLflow by their names, and what they share."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy
import pandas

client = mlflow.MlflowClient()
rows, labels = numpy.arange(40, dtype=float).reshape(20, 2), numpy.arange(20) % 2
frame = pandas.DataFrame({"x": [1.0, 2.0], "text": ["a", "b"]})
Use = Callable[[str], object]
uses: dict[str, Use] = {}


def use(function: Use) -> Use:
    uses[function.__name__.replace("_", "-")] = function
    return function


def in_run(function: Use) -> Use:
    """A use within a run that is open."""

    def whole(name: str) -> None:
        with mlflow.start_run(run_name="run"):
            function(name)

    uses[function.__name__.replace("_", "-")] = whole
    return whole


def current() -> str:
    active = mlflow.active_run()
    assert active is not None
    return str(active.info.run_id)


def file_in(folder: str, name: str, content: bytes = b"content\n") -> str:
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)
