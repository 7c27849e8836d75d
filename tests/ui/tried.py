"""Backtests as they are kept: one that runs, one that failed, and one whose report has hostile words."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.decide.drift import WORST_FIRST
from app.kit.times import at
from app.replay.figures import NUMBERS
from tests.ui.history import HOSTILE, POLICY

Row = dict[str, Any]

RUNNING, FAILED, ENDED = (UUID(int=7 << 76 | 2 << 62 | number) for number in (1, 2, 3))
#: Episodes that end otherwise in the report of ENDED.
CHANGED = 230


def tried(now: datetime, policy: str = POLICY) -> list[Row]:
    """The rows of RUNNING, FAILED and ENDED."""
    asked = {"policy": {"text": policy.replace("cooldown: 24h", "cooldown: 12h"), "hash": "0123456789ab"}}
    common: Row = {
        "caller": "anonymous",
        "asked": json.dumps(asked | {"compare": "live", "route": None, "group": {}}),
        "created_at": now - timedelta(minutes=3),
        "started_at": now - timedelta(minutes=2),
        "attempts": 1,
        "done": 0,
        "total": 0,
        "size": 0,
        "alive_at": None,
        "ended_at": None,
        "step": None,
        "error": None,
        "result": None,
    }
    report = json.dumps(_report(now))
    return [
        common
        | {
            "id": RUNNING,
            "caller": "ben",
            "state": "running",
            "alive_at": now,
            "step": "proposed",
            "done": 41_000,
            "total": 90_000,
        },
        common
        | {
            "id": FAILED,
            "state": "failed",
            "ended_at": now,
            "error": "The history has more than 1000000 records: use `trigger-gateway backtest`, which has no such bound.",
        },
        common | {"id": ENDED, "state": "succeeded", "ended_at": now, "result": report, "size": len(report)},
    ]


def _report(now: datetime) -> Row:
    now_, proposed = _figures(41, 3), _figures(57, 0)
    changed = [
        {
            "route": "accuracy" if number % 7 else None,
            "group": {"model": HOSTILE[number % len(HOSTILE)]},
            "alert_id": HOSTILE[0],
            "fingerprint": f"{number:016x}",
            "text": f"{HOSTILE[number % len(HOSTILE)][:300]} 2 Nov 03:10: cooldown 1d → 12h; 1 run becomes 2",
        }
        for number in range(CHANGED)
    ]
    return {
        "coverage": {
            "from": at(now - timedelta(days=30)),
            "to": at(now),
            "events": 90_000,
            "live_runs": 41,
            "broken_lines": 2,
            "holes": [{"from": at(now - timedelta(days=9)), "to": at(now - timedelta(days=8))}],
            "notes": [f"The labels of {HOSTILE[0]} changed."],
            "policies": {"now": "fedcba987654", "proposed": "0123456789ab"},
            "differences": ["accuracy.cooldown"],
        },
        "assumptions": [
            {"name": "run_estimated", "text": "Any other run begins at once and succeeds, after 40m.", "triggers": 16},
            {
                "name": "confirm",
                "text": "Nobody knows what Prometheus would have answered: `on_error` counts.",
                "triggers": 1,
            },
        ],
        "now": now_,
        "proposed": proposed,
        "routes": {name: {"now": now_, "proposed": proposed} for name in ("accuracy", "drift")},
        "changed": changed,
    }


def _figures(retrains: int, missed: int) -> Row:
    numbers: Row = {name: 0.0 if name.endswith("hours") else 0 for name in NUMBERS}
    numbers |= {"alerts": 90_000, "episodes": 120, "retrains": retrains, "run_hours": retrains * 0.7}
    return numbers | {"missed_episodes": missed, "refused": {"cooldown": 1200 + missed, "duplicate": len(WORST_FIRST)}}
