"""A rich history, written straight into the tables: 60 days of models in every state and with every outcome, by a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app import tables
from app.decide.state import group_key
from app.kit.db import insert_rows
from app.promotion import store
from app.promotion.store import Promotion

Row = dict[str, Any]

POLICY = """
version: 1
airflow:
  - {name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}}
mlflow: {tracking_uri: "http://mlflow.test:5000"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    cooldown: 24h
    dag: {id: retrain_model}
  - name: drift
    match: ['alertname="Drift"']
    group_by: [model]
    debounce: 6h
    cooldown: 48h
    dag: {id: retrain_model}
  - name: rehearsal
    match: ['alertname="Rehearsal"']
    group_by: [model]
    mode: shadow
    dag: {id: retrain_model}
deadman:
  - {name: m00-retrained, expect: {retrain: accuracy, group: {model: m00-churn}}, every: 7d, grace: 12h, receivers: [ops]}
  - {name: nightly, expect: heartbeat, every: 1d, grace: 1h, receivers: [ops]}
receivers:
  - {name: ops, webhook: {url: "http://ops.test/hook", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}
promotions:
  - model: .*
    to: champion
    rules: ['f1 >= 0.8']
"""

#: What a model has come to, in turn: the state of its newest trigger, and what blocks it.
FATES: Sequence[tuple[str, str | None]] = (
    ("succeeded", None),
    ("failed", None),
    ("pending", "dag_paused"),
    ("running", None),
    ("dead", None),
    ("held", None),
    ("submitted", None),
    ("lost", None),
    ("pending", "unreachable"),
    ("cancelled", None),
    ("none", None),
)
_WORDS = ("churn", "fraud", "pricing", "ranking", "credit-default-risk", "next-best-offer", "demand", "spam")
_OUTCOMES = {"succeeded": "success", "failed": "failed", "dead": "dead", "lost": "lost"}
_RUN_STATES = {"succeeded": "success", "failed": "failed", "running": "running", "submitted": "queued"}
_DETAILS = {
    "succeeded": "the DAG run succeeded",
    "failed": "the DAG run failed",
    "dead": "Airflow refused the run: conf is too large",
    "running": "the DAG run is running",
    "submitted": "Airflow has queued the DAG run",
    "lost": "the run is open for longer than its run_timeout",
    "held": "held until its debounce ends",
    "cancelled": "cancelled by ana",
    "pending": "waits for Airflow",
}


@dataclass
class History:
    """Rows of each table. `write` inserts them all."""

    now: datetime
    random: random.Random
    alerts: list[Row] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)
    triggers: list[Row] = field(default_factory=list)
    groups: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    versions: list[Row] = field(default_factory=list)
    notices: list[Row] = field(default_factory=list)
    aliases: list[Row] = field(default_factory=list)
    promotions: list[Promotion] = field(default_factory=list)

    def ident(self, at: datetime) -> UUID:
        """A UUIDv7 of that time."""
        bits = self.random.getrandbits
        stamp = int(at.timestamp() * 1000) << 80
        return UUID(int=stamp | 7 << 76 | bits(12) << 64 | 2 << 62 | bits(62))

    def model(self, labels: dict[str, str], route: str, fate: str, blocked: str | None, days: int = 60) -> None:
        """One group with its past, which ends as `fate` says."""
        key = group_key(route, "shadow" if route == "rehearsal" else "live", labels)
        at = self.now - timedelta(days=days) + timedelta(hours=self.random.uniform(0, 72))
        ended: Row | None = None
        while at < self.now - timedelta(days=3):
            state = self.random.choices(("succeeded", "failed", "dead", "cancelled"), (8, 2, 1, 1))[0]
            ended = self._episode(labels, route, key, at, state, None)
            at += timedelta(hours=self.random.uniform(50, 220))
        newest = ended
        if fate != "none":
            hours = 3 if fate in ("succeeded", "failed", "dead", "cancelled") else 1
            newest = self._episode(labels, route, key, self.now - timedelta(hours=hours), fate, blocked)
        self.groups.append(self._group(labels, route, key, newest, ended, fate))

    def _episode(self, labels: Row, route: str, key: str, at: datetime, state: str, blocked: str | None) -> Row:
        rng = self.random
        open_now = state in ("held", "pending", "running", "submitted", "lost")
        ident = self.ident(at)
        lasts = timedelta(hours=rng.uniform(0.5, 30))
        firing = open_now or at + lasts > self.now
        trigger = self._trigger(labels, route, key, at, state, blocked)
        name = {"drift": "Drift", "rehearsal": "Rehearsal"}.get(route, "ModelAccuracyLow")
        severity = rng.choice(("critical", "warning", "info"))
        reason = "debouncing" if state == "held" else "duplicate"
        decision = self.ident(at + timedelta(minutes=5))
        first = {
            "action": "hold" if route == "drift" else "fire",
            "reason": "debouncing" if route == "drift" else "new_alert",
        }
        self._decide(self.ident(at), ident, trigger["id"], route, key, first, at, "a new alert")
        self._decide(
            decision,
            ident,
            trigger["id"],
            route,
            key,
            {"action": "suppress", "reason": reason},
            at + timedelta(minutes=5),
            "its trigger has fired",
        )
        end = None if firing else at + lasts
        self.alerts.append(
            {
                "id": ident, "alert_id": name, "fingerprint": f"{rng.getrandbits(64):016x}", "source": "alertmanager",
                "status": "firing" if firing else "resolved", "severity": severity, "starts_at": at, "ends_at": end,
                "labels": {"alertname": name, "severity": severity, **labels},
                "annotations": {"summary": f"{name} of {labels.get('model', '')[:80]}"}, "route": route, "group_key": key,
                "group_labels": labels, "count": rng.randint(1, 40), "first_seen_at": at,
                "last_seen_at": end or self.now - timedelta(minutes=2), "firing_since": at, "closed_at": end,
                "resolved_at": end, "trigger_id": trigger["id"], "spent": False, "dismissed": False,
                "decision_id": decision, "decision_count": 3, "reason": reason,
            }
        )  # fmt: skip
        return trigger

    def _decide(
        self, ident: UUID, alert: UUID, trigger: UUID, route: str, key: str, what: Row, at: datetime, detail: str
    ) -> None:
        self.decisions.append(
            {"id": ident, "alert": alert, "trigger_id": trigger, "route": route, "group_key": key, **what, "until": None,
             "detail": detail, "policy": "p", "count": 1, "first_at": at, "last_at": at}
        )  # fmt: skip

    def _trigger(self, labels: Row, route: str, key: str, at: datetime, fate: str, blocked: str | None) -> Row:
        rng = self.random
        waits = (
            timedelta(hours=rng.uniform(1, 6)) if route == "drift" and fate not in ("running", "lost") else timedelta()
        )
        state = "running" if fate == "lost" else fate
        fired = None if state in ("held", "cancelled") else min(at + waits, self.now - timedelta(minutes=30))
        ended = None
        if state in ("succeeded", "failed", "dead", "cancelled"):
            ended = min((fired or at) + timedelta(minutes=rng.uniform(4, 400)), self.now - timedelta(minutes=5))
        ident = self.ident(at)
        accepted = fired + timedelta(seconds=2) if fired and state not in ("pending", "dead") else None
        conf = {"gateway": {"trigger_id": str(ident)}, "dataset": "s3://<b>"}
        row = {
            "id": ident, "route": route, "mode": "shadow" if route == "rehearsal" else "live", "group_key": key,
            "group_labels": labels, "reason": "new_alert", "state": state, "outcome": _OUTCOMES.get(fate),
            "detail": _DETAILS[fate],
            "blocked": blocked, "created_at": at, "fired_at": fired, "accepted_at": accepted,
            "started_at": accepted + timedelta(seconds=4) if accepted and state != "submitted" else None,
            "ended_at": ended, "lost_at": self.now - timedelta(minutes=10) if fate == "lost" else None,
            "unread_since": None, "airflow": "default", "dag_id": "retrain_model",
            "dag_run_id": f"gateway__{route}__{ident}",
            "conf": conf if fired else None, "run_timeout": 86400.0, "on_failure": "release",
            "dag_run_state": _RUN_STATES.get(state) if accepted else None, "follow_at": None, "requested_by": None,
            "policy": "p",
        }  # fmt: skip
        self.triggers.append(row)
        if fired:
            good = accepted is not None
            self.attempts.append(
                {"id": self.ident(fired), "item": ident, "result": "delivered" if good else "retry",
                 "code": "ok" if good else blocked or "rejected", "detail": "delivered" if good else "not taken",
                 "count": 1, "first_at": fired, "last_at": fired}
            )  # fmt: skip
        if state == "succeeded" and ended and accepted:
            self._run(labels, row, accepted, ended)
        return row

    def _run(self, labels: Row, trigger: Row, began: datetime, ended: datetime) -> None:
        run = f"{self.random.getrandbits(128):032x}"
        self.runs.append(
            {"run_id": run, "experiment_id": "1", "name": trigger["dag_run_id"], "status": "FINISHED", "deleted": False,
             "trigger_id": trigger["id"], "dag_run_id": trigger["dag_run_id"], "git_commit": "3f9c2a71", "metrics": 3,
             "started_at": began, "ended_at": ended, "seen_at": ended}
        )  # fmt: skip
        model = labels.get("model", "all")
        number = sum(version["model"] == model for version in self.versions) + 1
        self.versions.append(
            {
                "model": model,
                "version": str(number),
                "run_id": run,
                "status": "READY",
                "created_at": ended,
                "seen_at": ended,
            }
        )

    def _group(self, labels: Row, route: str, key: str, newest: Row | None, ended: Row | None, fate: str) -> Row:
        is_open = newest is not None and newest["state"] in ("held", "pending", "running", "submitted")
        fired = (
            newest if newest is not None and newest["fired_at"] else (ended if ended and ended["fired_at"] else None)
        )
        return {
            "key": key, "route": route, "mode": "shadow" if route == "rehearsal" else "live", "labels": labels,
            "fired_at": fired["fired_at"] if fired else None, "accepted_at": fired["accepted_at"] if fired else None,
            "ended_at": fired["ended_at"] if fired else None, "outcome": fired["outcome"] if fired else None,
            "failures": int(fate == "failed"), "reset_at": None, "unconfirmed_at": None,
            "open_trigger": newest["id"] if newest and is_open else None,
            "held_since": newest["created_at"] if newest and fate == "held" else None,
            "last_trigger": fired["id"] if fired else None, "on_failure": "release", "wake_at": None, "version": 1,
            "nonce": "0000",
        }  # fmt: skip

    async def write(self, engine: AsyncEngine) -> None:
        """All rows, in one transaction."""
        async with engine.begin() as conn:
            for name in (
                "alerts",
                "decisions",
                "triggers",
                "groups",
                "attempts",
                "runs",
                "versions",
                "aliases",
                "notices",
            ):
                await insert_rows(conn, getattr(tables, name), getattr(self, name))
            for row in self.promotions:
                assert await store.add(conn, row)


def _promote(history: History) -> None:
    """Every second version got the alias champion; the third of these lost it again."""
    held: dict[str, str] = {}
    for number, version in enumerate(history.versions[::2]):
        at, name = version["created_at"], ("model", "version")
        model, promoted = (version[key] for key in name)
        row = Promotion(
            history.ident(at), "promote", "mlflow", model, "champion", promoted, "promoted", "live", "ana", at, "p"
        )
        history.promotions.append(replace(row, target=promoted, ended_at=at + timedelta(minutes=20)))
        if number % 3 != 2:
            held[model] = promoted
        else:
            back = replace(row, id=history.ident(at), kind="rollback", state="rolled_back", rollback_of=row.id)
            history.promotions.append(replace(back, ended_at=at + timedelta(hours=5)))
    history.aliases += [
        {"model": model, "alias": "champion", "version": version, "seen_at": history.now}
        for model, version in held.items()
    ]


def rich(now: datetime, *, models: int = 40, seed: int = 1) -> History:
    """Models in every state, on every route, and two open incidents."""
    history = History(now, random.Random(seed))
    for number in range(models):
        route = ("accuracy", "drift", "rehearsal")[0 if number < 2 * len(FATES) else number % 3]
        fate, blocked = FATES[number % len(FATES)]
        if route == "rehearsal":
            fate, blocked = "none", None
        if fate == "held":
            route = "drift"  # Only this route has a debounce.
        history.model({"model": f"m{number:02}-{_WORDS[number % len(_WORDS)]}"}, route, fate, blocked)
    _promote(history)
    dead = next((t["id"] for t in reversed(history.triggers) if t["state"] == "dead"), None)
    for event, severity, title, detail, link in (
        (
            "trigger_dead",
            "critical",
            "A trigger is dead: accuracy, model=m04-credit-default-risk",
            "Airflow refused the run: conf is too large. Correct it, then redrive the trigger.",
            f"/ui/triggers/{dead}" if dead else None,
        ),
        (
            "trigger_waiting",
            "warning",
            "Airflow default has not taken a trigger for 35 minutes",
            "The DAG retrain_model is paused. Unpause it in Airflow; the run then starts by itself.",
            None,
        ),
    ):
        at = now - timedelta(minutes=35)
        history.notices.append(
            {"id": history.ident(at), "key": f"{event}:{title}", "event": event, "severity": severity, "title": title,
             "detail": detail, "labels": {}, "link": link, "opened_at": at, "resolved_at": None, "resolution": None}
        )  # fmt: skip
    return history


#: Labels that would break a page which trusts them.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "x" * 4096,
    "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f525" * 20,
    "javascript:alert(1)",
    "&lt;b&gt; &amp; ' \" ` \u2028 ]]> -->",
    "",
)


def hostile(now: datetime) -> History:
    """A group for each hostile label."""
    history = History(now, random.Random(7))
    for number, text in enumerate(HOSTILE):
        fate, blocked = FATES[number]
        history.model({"model": text}, "accuracy", fate, blocked, days=20)
    return history


def promotions(now: datetime) -> list[Promotion]:
    """A model whose champion changed, was blocked and was rolled back. Its words are hostile."""
    past = (
        ("promoted", "promote", "1", "1", 40),
        ("blocked", "promote", "2", "2", 30),
        ("promoted", "promote", "3", "3", 20),
        ("rolled_back", "rollback", "3", "1", 19),
        ("promoted", "promote", "4", "4", 2),
    )
    rows = []
    for number, (state, kind, version, target, days) in enumerate(past):
        at = now - timedelta(days=days)
        ident = UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | number)
        verdicts = [
            {"rule": "version", "passed": True, "detail": f"version {version} is READY", "final": True},
            {"rule": "f1 >= 0.8", "passed": state != "blocked", "detail": f"f1 is 0.{number}", "final": False},
        ]
        made = Promotion(ident, kind, "mlflow", "churn", "champion", version, state, "live", "ana", at, "p")
        reason = HOSTILE[0] if number else "new labels"
        detail = f"version {target} holds champion"
        rows.append(replace(made, target=target, verdicts=verdicts, ended_at=at, detail=detail, reason=reason))
    return rows
