"""Uses of MLflow: files and data sets. See uses.py."""

import importlib
import io
import tempfile
from pathlib import Path

import mlflow
import numpy
import pandas

rows, labels = numpy.arange(40, dtype=float).reshape(20, 2), numpy.arange(20) % 2
frame = pandas.DataFrame({"x": [1.0, 2.0], "text": ["a", "b"]})


def file_in(folder: str, name: str, content: bytes = b"content\n") -> str:
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def in_run_texts(name: str) -> None:
    mlflow.log_text("a", "a.txt")
    mlflow.log_text("<p>b</p>", "deep/er/b.html")
    mlflow.log_text("second", "a.txt")


def in_run_dicts(name: str) -> None:
    mlflow.log_dict({"a": [1, 2]}, "a.json")
    mlflow.log_dict({"a": {"b": 1}}, "deep/a.yaml")


def in_run_files(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mlflow.log_artifact(file_in(folder, "a.txt"))
        mlflow.log_artifact(file_in(folder, "b.bin", bytes(range(256))), "binary")
        mlflow.log_artifact(file_in(folder, "empty.txt", b""))


def in_run_folders(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in ("x.csv", "deep/y.csv", "deep/er/z.csv"):
            file_in(folder, path)
        mlflow.log_artifacts(folder)
        mlflow.log_artifacts(folder, "data")


def in_run_names_of_files(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in ("with space.txt", "größe.txt", "100%.txt", "a+b&c=d.txt", "a;b,c.txt", "~x.txt"):
            mlflow.log_artifact(file_in(folder, path))


def in_run_names_that_the_server_refuses(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in ("val#pred.txt", "a%20b.txt"):
            mlflow.log_artifact(file_in(folder, path, path.encode()), "names")


def in_run_many_files(name: str) -> None:
    for number in range(30):
        mlflow.log_text(str(number), f"parts/{number}.txt")


def in_run_stream(name: str) -> None:
    mlflow.log_stream(io.BytesIO(b"streamed"), "streamed.bin")


def in_run_image(name: str) -> None:
    mlflow.log_image(numpy.zeros((4, 4, 3), dtype="uint8"), "image.png")


def in_run_images_of_steps(name: str) -> None:
    for step in range(2):
        mlflow.log_image(numpy.zeros((4, 4, 3), dtype="uint8"), key="pred", step=step)


def in_run_image_whose_name_the_server_refuses(name: str) -> None:
    mlflow.log_image(numpy.zeros((4, 4, 3), dtype="uint8"), key="val/pred", step=0)


def use_file_of_a_run_that_ended(name: str) -> None:
    with mlflow.start_run(run_name="run") as run:
        pass
    with tempfile.TemporaryDirectory() as folder:
        mlflow.log_artifact(file_in(folder, "late.txt"), "late", run_id=run.info.run_id)


def in_run_files_that_are_read_back(name: str) -> None:
    active = mlflow.active_run()
    assert active is not None
    mlflow.log_dict({"depth": 6}, "config.json")
    with tempfile.TemporaryDirectory() as folder:
        mlflow.log_artifact(file_in(folder, "a.txt"), "deep")
    assert mlflow.artifacts.load_dict(f"runs:/{active.info.run_id}/config.json") == {"depth": 6}
    listed = mlflow.artifacts.list_artifacts(run_id=active.info.run_id)
    mlflow.log_param("files", ",".join(sorted(item.path for item in listed)))


def in_run_figure(name: str) -> None:
    importlib.import_module("matplotlib").use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    drawn, axes = pyplot.subplots()
    axes.plot([1, 2])
    mlflow.log_figure(drawn, "figure.svg")


def in_run_table(name: str) -> None:
    mlflow.log_table({"a": [1], "b": ["x"]}, "table.json")
    mlflow.log_table(frame, "frame.parquet")


def in_run_table_with_more_rows(name: str) -> None:
    for _ in range(3):
        mlflow.log_table(frame, "table.json")


def in_run_data(name: str) -> None:
    mlflow.log_input(mlflow.data.from_numpy(rows, targets=labels, name="customers"), "training", {"kind": "a"})
    mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://x/y.csv", name="frame"))
