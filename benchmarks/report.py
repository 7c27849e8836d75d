"""The figures of `make bench` as a person reads them: one table for the loads, one for the DAG runs."""

import statistics
from collections.abc import Sequence
from typing import Any, Final

_HEAD: Final = (
    *("part", "load", "server", "webhooks/s", "alerts/s", "ratio", "p50 ms", "p99 ms", "server us", "Postgres us"),
    *("Valkey us", "rows", "WAL bytes", "refused", "broken"),
)
_RUNS: Final = ("part", "Airflow", "way", "alerts", "answer p50 ms", "p99 ms", "run p50 ms", "p99 ms")
_WORDS: Final = 3  # columns that are no figures


def report(found: dict[str, Any]) -> str:
    """Two tables in Markdown, which also stand well on a terminal, and the count of what was acknowledged."""
    lines = ["  ".join(f"{name}: {value}" for name, value in found["machine"].items()), ""]
    if found["loads"]:
        lines += _table(_HEAD, [_load(figures) for figures in found["loads"]])
        lines += ["", "ratio: of the rate, to that of the last server of the same load, within a round.", ""]
    if found["runs"]:
        lines += [*_table(_RUNS, [_run(times) for times in found["runs"]]), ""]
    lines.append(
        f"acknowledged {found['acknowledged']} <= counted {found['counted']} <= received {found['received_at_most']}: "
        f"{'yes' if found['exact'] else 'NO: alerts were lost or counted twice'}"
    )
    return "\n".join(lines)


def _load(figures: dict[str, Any]) -> list[str]:
    load, measured, costs = figures["load"], figures["measured"], figures["costs"]
    spent = [f"{costs['postgres']:.0f}", f"{costs['valkey']:.0f}", f"{costs['rows']:.2f}", f"{costs['wal']:.0f}"]
    native = "native " if load["form"] == "native" else ""
    return [
        figures["part"],
        f"{native}{load['kind']}, {load['alerts']} a webhook",
        figures["server"],
        f"{measured['per_second']:.0f}",
        f"{measured['per_second'] * load['alerts']:.0f}",
        f"{statistics.median(figures['ratios']):.2f}",
        f"{measured['p50']:.1f}",
        f"{measured['p99']:.1f}",
        f"{costs['server']:.0f}",
        *(spent if costs["wal"] else ["", "", "", ""]),
        f"{measured['refused']}",
        f"{measured['broken']}",
    ]


def _run(times: dict[str, Any]) -> list[str]:
    figures = [f"{times[name]:.1f}" for name in ("answer_p50", "answer_p99", "run_p50", "run_p99")]
    return ["runs", times["airflow"], times["way"], str(times["runs"]), *figures]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    marks = ["-" * width if place < _WORDS else "-" * (width - 1) + ":" for place, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if place < _WORDS else c.rjust(w) for place, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    return [line(head), line(marks), *(line(row) for row in rows)]
