"""How the doctor's answer is shown: one line per check for people, one JSON document for scripts."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from app.cli.doctor.finding import Finding, worst
from app.kit.visible import visible

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    """`{"status": worst level, "checks": [{"check", "level", "detail", "next_step"}]}`."""
    return json.dumps({"status": worst(findings), "checks": [asdict(finding) for finding in findings]}, indent=2)


def show(findings: Sequence[Finding]) -> None:
    """Print one line per check, what to do below it, and the totals at the end."""
    console = Console(highlight=False, markup=False)
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        line = Text(f"{finding.level:<5} ", style=_STYLES[finding.level])
        line.append(f"{finding.check:<{width}}  {visible(finding.detail)}", style="default not bold")
        console.print(line, soft_wrap=True)
        if finding.next_step:
            console.print(f"      -> {visible(finding.next_step)}", soft_wrap=True)
    failed, warned = (sum(finding.level == level for finding in findings) for level in ("fail", "warn"))
    console.print(f"{len(findings)} checks: {failed} failed, {warned} to know of.")
