"""A Prometheus that remembers weeks: ALERTS, up and a measured accuracy, written as blocks by promtool."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.e2e.processes import Process, require_binary, write_yaml

START: Final = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

#: promtool reads its whole input once for each block of two hours. Short inputs keep that cheap.
CHUNK: Final = 3 * DAY

#: From when until when a series has a sample each minute, since START, and its value.
When = tuple[timedelta, timedelta, float]


@dataclass
class Remembering(Process):
    """Serves the blocks of a folder."""

    blocks: Path

    def __post_init__(self) -> None:
        self.name, self.ready_path = "prometheus", "/-/ready"

    def command(self) -> list[str | Path]:
        file = write_yaml(self.folder / "prometheus.yml", {"scrape_configs": []})
        options = [
            f"--config.file={file}",
            f"--storage.tsdb.path={self.blocks}",
            "--storage.tsdb.retention.time=20y",
            "--storage.tsdb.min-block-duration=2h",  # Both alike: the blocks stay as they are.
            "--storage.tsdb.max-block-duration=2h",
            "--query.lookback-delta=59s",  # As with a real rule, which marks the end of an alert.
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        return [require_binary("prometheus"), *options]


def write_blocks(folder: Path, series: Mapping[str, Sequence[When]], days: int) -> None:
    """Blocks with these series, each by its name and labels as OpenMetrics has them."""
    folder.mkdir(parents=True)
    program: list[str | Path] = [require_binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
    begin = timedelta(0)
    while begin < days * DAY:
        end = min(begin + CHUNK, days * DAY)
        text = folder / "input"
        text.write_text("".join(_lines(series, begin, end)) + "# EOF\n")
        subprocess.run([*program, text, folder], check=True, capture_output=True)
        text.unlink()
        begin = end


def _lines(series: Mapping[str, Sequence[When]], begin: timedelta, end: timedelta) -> Iterator[str]:
    for kind in dict.fromkeys(name.partition("{")[0] for name in series):
        yield f"# TYPE {kind} gauge\n"
        for name, times in series.items():
            if name.partition("{")[0] == kind:
                for first, last, value in times:
                    yield from _samples(name, max(first, begin), min(last, end), value)


def _samples(name: str, first: timedelta, last: timedelta, value: float) -> Iterator[str]:
    start = int(START.timestamp())
    for seconds in range(int(first.total_seconds()), int(last.total_seconds()), 60):
        yield f"{name} {value} {start + seconds}\n"
