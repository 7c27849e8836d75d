"""Uses of MLflow: files and data sets."""

import io
import tempfile

import mlflow
import numpy
from uses_kit import file_in, frame, in_run, labels, rows


@in_run
def texts(name: str) -> None:
    mlflow.log_text("a", "a.txt")
    mlflow.log_text("<p>b</p>", "deep/er/b.html")
    mlflow.log_text("second", "a.txt")


@in_run
def dicts(name: str) -> None:
    mlflow.log_dict({"a": [1, 2]}, "a.json")
    mlflow.log_dict({"a": {"b": 1}}, "deep/a.yaml")


@in_run
def files(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mlflow.log_artifact(file_in(folder, "a.txt"))
        mlflow.log_artifact(file_in(folder, "b.bin", bytes(range(256))), "binary")
        mlflow.log_artifact(file_in(folder, "empty.txt", b""))


@in_run
def folders(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in ("x.csv", "deep/y.csv", "deep/er/z.csv"):
            file_in(folder, path)
        mlflow.log_artifacts(folder)
        mlflow.log_artifacts(folder, "data")


@in_run
def names_of_files(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in ("with space.txt", "größe.txt", "100%.txt", "a+b&c=d.txt", "a;b,c.txt", "~x.txt"):
            mlflow.log_artifact(file_in(folder, path))


@in_run
def names_that_the_server_refuses(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in ("val#pred.txt", "a%20b.txt"):
            mlflow.log_artifact(file_in(folder, path, path.encode()), "names")


@in_run
def many_files(name: str) -> None:
    for number in range(30):
        mlflow.log_text(str(number), f"parts/{number}.txt")


@in_run
def stream(name: str) -> None:
    mlflow.log_stream(io.BytesIO(b"streamed"), "streamed.bin")


@in_run
def image(name: str) -> None:
    mlflow.log_image(numpy.zeros((4, 4, 3), dtype="uint8"), "image.png")


@in_run
def figure(name: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots()
    axes.plot([1, 2])
    mlflow.log_figure(drawn, "figure.svg")


@in_run
def table(name: str) -> None:
    mlflow.log_table({"a": [1], "b": ["x"]}, "table.json")
    mlflow.log_table(frame, "frame.parquet")


@in_run
def table_with_more_rows(name: str) -> None:
    for _ in range(3):
        mlflow.log_table(frame, "table.json")


@in_run
def data(name: str) -> None:
    mlflow.log_input(mlflow.data.from_numpy(rows, targets=labels, name="customers"), "training", {"kind": "a"})
    mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://x/y.csv", name="frame"))
