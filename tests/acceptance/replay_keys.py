"""For each key of the policy that can change what fires: a candidate that changes it, and a short story in which that
matters. For every other key: why it cannot. tests/acceptance/test_replay_keys.py lives through the rows, and holds the table
to the schema: who adds a key adds a row, or a reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.acceptance.lives import OTHER_AIRFLOW, OTHER_PROMETHEUS, PROMETHEUS, Step, model_in
from tests.acceptance.world import policy
from tests.fakes.airflow import FakeRun
from tests.fakes.clock import NOON

HOUR = timedelta(hours=1)


# -- stories ------------------------------------------------------------------------------------------------------------


def fires(model: str, began: float, ended: float | None = None, last: float | None = None) -> list[Step]:
    """An alert from one hour to another, repeated every four hours as Alertmanager does. `last`: it is not heard after."""
    begin, until = began * HOUR, (ended or last or began) * HOUR
    times = [begin + 4 * HOUR * number for number in range((until - begin) // (4 * HOUR) + 1)]
    steps = [Step(after, "firing", model, "a", begin) for after in times]
    return [*steps, Step(until, "resolved", model, "a", begin)] if ended is not None else steps


def story(*parts: Sequence[Step]) -> list[Step]:
    return sorted((step for part in parts for step in part), key=lambda step: step.after)


#: One alert lasts for a day and more, one ends soon and comes back a day later, and one falls silent.
STORY = story(
    fires("churn", 0.0, ended=26.1),
    fires("fraud", 1.0, ended=1.3),
    fires("ltv", 3.0, last=7.0),
    fires("fraud", 25.5, ended=26.0),
)
#: Three alerts within a second or so, which fire on.
TRIO = [Step(timedelta(seconds=number), "firing", model, "a") for number, model in enumerate(("churn", "fraud", "ltv"))]
#: Nothing but time; and the same with an hour and a half in which no gateway runs.
QUIET = [Step(HOUR, "firing", "ltv", "a", HOUR), Step(11 * HOUR, "resolved", "ltv", "a", HOUR)]
ABSENCE = [*QUIET[:1], Step(7.5 * HOUR, "outage", length=1.5 * HOUR), *QUIET[1:]]


def said(after: float, **body: Any) -> Step:
    """What the source `ci` posts: its own names for everything. `began` is in hours."""
    began = NOON + body.pop("began", after) * HOUR
    times = {"at": began.isoformat(), "seconds": began.timestamp(), "other_at": (NOON + after * HOUR).isoformat()}
    names = {"check": "ModelAccuracyLow", "other_check": "Other", "grade": "critical", "other_grade": "minor"}
    alert = {"state": "bad", "other_state": "good", "model": "churn", "region": "eu", **names, **times, **body}
    return Step(after * HOUR, "body", body={"list": [alert], "other_list": [alert | {"model": "fraud"}]})


#: It fires, ends, fires again with its first beginning, and ends.
POSTED = [said(0.0), said(1.0, state="good"), said(1.2, began=0.0), said(6.0, state="good", began=0.0)]


# -- policies -----------------------------------------------------------------------------------------------------------

PLAIN = policy()
CONFIRM = "confirm: {prometheus: 'http://HOST', query: 'QUERY{model=\"{{group.model}}\"}', on_error: WAY}"


def interval(**fields: str) -> str:
    """A mute from half past twelve to half past two, unless a field says otherwise. "": without that field."""
    known = {"times": "[{start_time: '12:30', end_time: '14:30'}]"} | fields
    shown = ", ".join(f"{name}: {value}" for name, value in known.items() if value)
    return policy("mute: [day]") + f"\ntime_intervals: [{{name: day, time_intervals: [{{{shown}}}]}}]\n"


def scheduled(**fields: str) -> str:
    known = {"name": "often", "cron": "'17 */5 * * *'", "route": "accuracy", "group": "{model: churn}"} | fields
    shown = ", ".join(f"{name}: {value}" for name, value in known.items())
    return second_route(cooldown="1h") + f"\nschedules: [{{{shown}}}]\n"


def second_route(match: str = 'alertname="Other"', cooldown: str = "24h", first: bool = False) -> str:
    """The policy with one more route, behind the other or before it."""
    entry = f"""  - name: second
    match: ['{match}']
    group_by: [model]
    cooldown: 3h
    dag: {{id: retrain_model}}
"""
    text = policy(cooldown=cooldown)
    return text.replace("routes:\n", f"routes:\n{entry}") if first else text + entry


def asking(host: str = PROMETHEUS, query: str = "x", way: str = "fire") -> str:
    return policy(CONFIRM.replace("HOST", host).replace("QUERY", query).replace("WAY", way))


def mapped(**fields: str) -> str:
    known = {
        "name": "ci",
        "alerts": "/list",
        "alert_id": "/check",
        "severity": "/grade",
        "timestamp": "/at",
        "status": "/state",
        "states": "{bad: firing, good: resolved}",
        "labels": "{model: /model}",
    } | fields
    text = policy("refire: false", cooldown="10m").replace("Low\"']", "Low\"', 'severity=\"critical\"']")
    return text + "\nsources: [{" + ", ".join(f"{name}: {value}" for name, value in known.items()) + "}]\n"


def two_airflows(airflow: str) -> str:
    """The default Airflow takes one run at a time, the other one as many as come."""
    text = policy("", cooldown="1h", airflow="max_parallel: 1").replace("dag: {id", f"dag: {{airflow: {airflow}, id")
    more = f'  - {{name: other, url: "http://{OTHER_AIRFLOW}", auth: {{username: gateway, password: gateway}}}}\n'
    return text.replace("routes:\n", f"{more}routes:\n")


def first_fails(run: FakeRun) -> str:
    """Whatever starts in the first hour fails."""
    return "failed" if run.queued_at < NOON + HOUR else "success"


def answers(host: str, query: str, _: Any) -> bool | None:
    """The other Prometheus says no, and so does the usual one about `y` for fraud. It does not know `z`."""
    if "z{" in query:
        return None
    return host == PROMETHEUS and not ("y{" in query and model_in(query) == "fraud")


# -- the table ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The policy that is in force, the candidate with the key changed, and the story. `lived`: the candidate's own life is
    "live" where the end of a run matters, else in "shadow". `outcome` of the runs. `recorded`: False where only bodies show
    what differs."""

    now: str
    candidate: str
    steps: Sequence[Step] = tuple(STORY)
    lived: str = "shadow"
    recorded: bool = True
    outcome: Callable[[FakeRun], str] = lambda _: "success"


def _limit(triggers: int, per: str) -> str:
    return policy(f"limit: {{triggers: {triggers}, per: {per}}}")


_LATER = policy("debounce: 30m")
_FAILING = policy(cooldown="3h")

ROWS: dict[str, Row] = {
    "airflow": Row(policy(cooldown="1h"), policy(cooldown="1h", airflow="max_parallel: 1"), TRIO, "live"),
    "airflow.max_parallel": Row(
        policy(cooldown="1h", airflow="max_parallel: 2"), policy(cooldown="1h", airflow="max_parallel: 1"), TRIO, "live"
    ),
    "defaults": Row(PLAIN, PLAIN + "\ndefaults: {debounce: 30m}\n"),
    "routes": Row(PLAIN, second_route('model="churn"', first=True)),
    "routes.name": Row(PLAIN, PLAIN.replace("name: accuracy", "name: precision")),
    "routes.match": Row(PLAIN, PLAIN.replace("Low\"']", "Low\"', 'model!=\"fraud\"']")),
    "routes.group_by": Row(PLAIN, policy(group_by="[]")),
    "routes.debounce": Row(PLAIN, _LATER),
    "routes.cooldown": Row(PLAIN, policy(cooldown="12h")),
    "routes.refire": Row(PLAIN, policy("refire: false")),
    "routes.on_failure": Row(_FAILING, policy("on_failure: keep", cooldown="3h"), TRIO, "live", outcome=first_fails),
    "routes.failure_backoff": Row(
        _FAILING, _FAILING.replace("backoff: 30m", "backoff: 1h"), TRIO, "live", outcome=first_fails
    ),
    "routes.stale_after": Row(PLAIN, policy("stale_after: 30h")),
    "routes.limit": Row(PLAIN, _limit(1, "12h")),
    "routes.limit.triggers": Row(_limit(1, "12h"), _limit(2, "12h")),
    "routes.limit.per": Row(_limit(1, "12h"), _limit(1, "2h")),
    "routes.mute": Row(interval().replace("    mute: [day]\n", ""), interval()),
    "routes.mode": Row(PLAIN, policy("mode: shadow"), lived="live"),
    "routes.confirm": Row(PLAIN, asking(query="y")),
    "routes.confirm.prometheus": Row(asking(), asking(OTHER_PROMETHEUS)),
    "routes.confirm.query": Row(asking(), asking(query="y")),
    "routes.confirm.on_error": Row(asking(query="z"), asking(query="z", way="suppress")),
    "routes.dag": Row(two_airflows("default"), two_airflows("other"), TRIO, "live"),
    "routes.dag.airflow": Row(two_airflows("default"), two_airflows("other"), TRIO, "live"),
    "time_intervals": Row(interval(), interval(times="[{start_time: '12:30', end_time: '24:00'}]")),
    "time_intervals.time_intervals": Row(interval(), interval(times="[{start_time: '15:00', end_time: '16:00'}]")),
    "time_intervals.time_intervals.times": Row(
        interval(), interval(times="[{start_time: '14:55', end_time: '15:40'}]")
    ),
    "time_intervals.time_intervals.times.start_time": Row(
        interval(), interval(times="[{start_time: '13:10', end_time: '14:30'}]")
    ),
    "time_intervals.time_intervals.times.end_time": Row(
        interval(), interval(times="[{start_time: '12:30', end_time: '12:45'}]")
    ),
    "time_intervals.time_intervals.weekdays": Row(interval(), interval(weekdays="[tuesday]")),
    "time_intervals.time_intervals.days_of_month": Row(interval(), interval(days_of_month="['24']")),
    "time_intervals.time_intervals.months": Row(interval(), interval(months="[december]")),
    "time_intervals.time_intervals.years": Row(interval(), interval(years="['2027']")),
    "time_intervals.time_intervals.location": Row(interval(), interval(location="America/New_York")),
    "schedules": Row(second_route(cooldown="1h"), scheduled(), QUIET),
    "schedules.cron": Row(scheduled(), scheduled(cron="'47 */4 * * *'"), QUIET),
    "schedules.timezone": Row(scheduled(), scheduled(timezone="Asia/Kolkata"), QUIET),
    "schedules.route": Row(scheduled(), scheduled(route="second"), QUIET),
    "schedules.group": Row(scheduled(), scheduled(group="{model: fraud}"), QUIET),
    "schedules.catch_up": Row(scheduled(), scheduled(catch_up="none"), ABSENCE),
    "sources": Row(mapped(), mapped(labels="{model: /region}"), POSTED, recorded=False),
    "sources.alerts": Row(mapped(), mapped(alerts="/other_list"), POSTED, recorded=False),
    "sources.alert_id": Row(mapped(), mapped(alert_id="/other_check"), POSTED, recorded=False),
    "sources.severity": Row(mapped(), mapped(severity="/other_grade"), POSTED, recorded=False),
    "sources.timestamp": Row(mapped(), mapped(timestamp="/other_at"), POSTED, recorded=False),
    "sources.timestamp_unit": Row(
        mapped(timestamp="/seconds", timestamp_unit="s"), mapped(timestamp="/seconds"), POSTED, recorded=False
    ),
    "sources.status": Row(mapped(), mapped(status="/other_state"), POSTED, recorded=False),
    "sources.states": Row(mapped(), mapped(states="{bad: resolved, good: firing}"), POSTED, recorded=False),
    "sources.labels": Row(mapped(), mapped(labels="{model: /region}"), POSTED, recorded=False),
}

_REACHED = "how a server is reached, and not what it answers"
_NAMED = "a name: what else names it must follow"
_TOLD = "who gets a notice"
_UNKNOWN = "nobody knows whether a run helps: the report says so (`no_effect`)"

#: A key, and why it changes nothing that fires.
CANNOT: dict[str, str] = {
    "version": "there is one version",
    "airflow.name": _NAMED,
    **dict.fromkeys((f"airflow.{key}" for key in ("url", "api", "headers", "ca_file")), _REACHED),
    **dict.fromkeys(("routes.confirm.headers", "routes.confirm.ca_file"), _REACHED),
    "routes.run_timeout": "a lost run is told, and its group stays in flight until the run has ended",
    "routes.effect": _UNKNOWN,
    "routes.effect.settle": _UNKNOWN,
    "routes.effect.watch": _UNKNOWN,
    "routes.on_no_effect": _UNKNOWN,
    "routes.on_no_effect.after": _UNKNOWN,
    "routes.on_no_effect.then": _UNKNOWN,
    "routes.on_no_effect.receivers": _TOLD,
    "routes.openlineage": "what Airflow's events name as parent",
    "routes.lineage": "whether a missing run in MLflow is told",
    "routes.dag.id": "which DAG starts, and not when",
    "routes.dag.conf": "what the DAG gets",
    "time_intervals.name": _NAMED,
    "schedules.name": _NAMED,
    "sources.name": "the last part of the address: bodies of another address are another source",
    "sources.secret": "who may post",
    "sources.annotations": "no matcher reads them",
}
#: The same for whole sections, with every key in them.
SECTIONS: dict[str, str] = {
    "airflow.auth": _REACHED,
    "routes.confirm.auth": _REACHED,
    "routes.notify": _TOLD,
    "notify": _TOLD,
    "receivers": _TOLD,
    "deadman": "a switch sends notices, and starts nothing",
    "mlflow": "what is kept of runs, after they fired",
    "lineage": "what is missing in MLflow, after runs fired",
    "promotions": "what becomes of a model version, after its run",
}
