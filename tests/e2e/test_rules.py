"""The alert rules that we ship, under Prometheus' own test of rules: each fires when it should, and only then."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.processes import EXAMPLES, require_binary, write_yaml

FILES = sorted((EXAMPLES / "rules").glob("*.yml"))


@dataclass(frozen=True)
class Case:
    """Series as promtool writes them, one value `every` time; whether the alert fires `at` that time."""

    alert: str
    series: dict[str, str]
    at: str
    fires: bool
    every: str = "1m"


UP = {"gateway_build_info{}": "1x600"}
BUCKETS = {
    f'model_prediction_seconds_bucket{{model="churn", le="{le}"}}': values
    for le, values in {"0.1": "0+1x60", "1": "0+100x60", "+Inf": "0+100x60"}.items()
}
FAST = {f'model_prediction_seconds_bucket{{model="churn", le="{le}"}}': "0+100x60" for le in ("0.1", "1", "+Inf")}
ATTEMPTS = 'gateway_delivery_attempts_total{{target="{target}", result="{result}", code="x"}}'
CANARY = {'gateway_deadman_down{switch="canary"}': "0x120"}
CANARY_END = 'gateway_last_success_timestamp_seconds{route="canary"}'
RECURRED = {'gateway_effects_total{route="accuracy", effect="recurred"}': "_x5 1x23 2x23 3x48"}
HOURS = {'gateway_run_seconds_total{route="accuracy", effect="recurred"}': "0+3600x90"}
CASES = [
    Case("ModelAccuracyLow", {'model_accuracy{model="churn", instance="a"}': "0.8x20"}, "6m", True),
    Case("ModelAccuracyLow", {'model_accuracy{model="churn"}': "0.8x3 0.9x20"}, "6m", False),
    Case("ModelInputDrift", {'model_feature_psi{model="churn", feature="age"}': "0.3x60"}, "31m", True),
    Case("ModelInputDrift", {'model_feature_psi{model="churn", feature="age"}': "0.1x60"}, "31m", False),
    Case("ModelLatencyHigh", BUCKETS, "30m", True),
    Case("ModelLatencyHigh", FAST, "30m", False),
    Case("GatewayRetrainingDoesNotHelp", RECURRED, "80h", True, "1h"),
    Case("GatewayRetrainingDoesNotHelp", RECURRED, "40h", False, "1h"),  # Two are no row yet.
    Case(
        "GatewayRetrainingDoesNotHelp",
        RECURRED | {'gateway_effects_total{route="accuracy", effect="fixed"}': "0x30 1x90"},
        "80h",
        False,
        "1h",
    ),
    Case("GatewayRunHoursWithoutFix", HOURS, "60h", True, "1h"),
    Case("GatewayRunHoursWithoutFix", HOURS, "20h", False, "1h"),
    Case(
        "GatewayRunHoursWithoutFix",
        HOURS | {'gateway_effects_total{route="accuracy", effect="fixed"}': "0x30 1x90"},
        "60h",
        False,
        "1h",
    ),
    Case("GatewayAway", {"up{}": "0x20"}, "6m", True),
    Case("GatewayAway", UP, "6m", False),
    Case("GatewayNotDurable", {"gateway_not_durable_total{}": "0x5 1x20"}, "8m", True),
    Case("GatewayNotDurable", {"gateway_not_durable_total{}": "7x20"}, "8m", False),
    Case("GatewayFastPathFailing", {'gateway_fast_path_failures_total{cause="bug"}': "0x5 1x20"}, "8m", True),
    Case("GatewayFastPathFailing", {'gateway_fast_path_failures_total{cause="content"}': "0x5 1x20"}, "8m", True),
    Case("GatewayFastPathFailing", {'gateway_fast_path_failures_total{cause="bug"}': "7x30"}, "25m", False),
    Case("GatewayTriggerDead", {'gateway_triggers{route="accuracy", state="dead"}': "0 1x5"}, "2m", True),
    Case("GatewayTriggerDead", {'gateway_triggers{route="accuracy", state="pending"}': "3x5"}, "2m", False),
    Case("GatewayOutboxOld", {'gateway_outbox_oldest_seconds{target="airflow:default"}': "0+60x30"}, "17m", True),
    Case("GatewayOutboxOld", {'gateway_outbox_oldest_seconds{target="airflow:default"}': "0+60x9 0x20"}, "17m", False),
    Case("GatewayOutboxOld", {'gateway_outbox_oldest_seconds{target="receiver:oncall"}': "0+60x30"}, "17m", False),
    Case(
        "GatewayNoticeNotDelivered", {'gateway_outbox_oldest_seconds{target="receiver:oncall"}': "0+60x20"}, "9m", True
    ),
    Case(
        "GatewayNoticeNotDelivered",
        {'gateway_outbox_oldest_seconds{target="receiver:oncall"}': "0+60x5 0x9"},
        "9m",
        False,
    ),
    Case("GatewayNoticeRefused", {ATTEMPTS.format(target="receiver:oncall", result="dead"): "_x5 1x9"}, "7m", True),
    Case("GatewayNoticeRefused", {ATTEMPTS.format(target="receiver:oncall", result="dead"): "1x90"}, "80m", False),
    Case("GatewayNoticeRefused", {ATTEMPTS.format(target="receiver:oncall", result="retry"): "0+1x9"}, "7m", False),
    Case("GatewayIncidentOpen", {'gateway_notices_open{event="trigger_waiting"}': "1x70"}, "62m", True),
    Case("GatewayIncidentOpen", {'gateway_notices_open{event="trigger_waiting"}': "1x30 0x40"}, "62m", False),
    Case("GatewaySwitchDown", {'gateway_deadman_down{switch="churn"}': "0 1x9"}, "3m", True),
    Case("GatewaySwitchDown", {'gateway_deadman_down{switch="churn"}': "0x9"}, "3m", False),
    Case("GatewayCanaryLate", CANARY | {CANARY_END: "600x120"}, "61m", True),
    Case("GatewayCanaryLate", CANARY, "21m", True),  # It never came through.
    Case("GatewayCanaryLate", CANARY | {CANARY_END: "600x59 3600x60"}, "65m", False),  # Late, and there after all.
    Case("GatewayCanaryLate", {CANARY_END: "600x120"}, "61m", False),  # It was taken out of the policy.
    Case("GatewayCanarySlow", {'gateway_last_success_duration_seconds{route="canary"}': "8 301x9"}, "3m", True),
    Case("GatewayCanarySlow", {'gateway_last_success_duration_seconds{route="canary"}': "8 301 9x9"}, "5m", False),
    Case("GatewayCanarySlow", {'gateway_last_success_duration_seconds{route="accuracy"}': "7200x9"}, "3m", False),
    Case("GatewayWatchStuck", {"gateway_watched_until_timestamp_seconds{}": "0x9"}, "5m", True),
    Case("GatewayWatchStuck", {"gateway_watched_until_timestamp_seconds{}": "0+60x9"}, "5m", False),
    Case("GatewayTargetAway", {'gateway_breaker_open{target="airflow:default"}': "1x10"}, "6m", True),
    Case("GatewayTargetAway", {'gateway_breaker_open{target="airflow:default"}': "1x3 0x10"}, "6m", False),
    Case("GatewayLoopFailing", {'gateway_loop_failures{loop="relay", instance="a"}': "0+1x20"}, "8m", True),
    Case("GatewayLoopFailing", {'gateway_loop_failures{loop="relay", instance="a"}': "0 1 2 0x20"}, "8m", False),
    Case("GatewayItemsLeftAside", {'gateway_loop_items_failed_total{loop="follower"}': "_x4 1x20"}, "6m", True),
    Case("GatewayItemsLeftAside", {'gateway_loop_items_failed_total{loop="follower"}': "1x5 2x20"}, "20m", True),
    Case("GatewayItemsLeftAside", {'gateway_loop_items_failed_total{loop="follower"}': "1x60"}, "40m", False),
    Case("GatewayPromotionUnsettled", {"gateway_promotions_open{}": "1x10"}, "6m", True),
    Case("GatewayPromotionUnsettled", {"gateway_promotions_open{}": "1x3 0x10"}, "6m", False),
    Case("GatewayRedisFailing", {'gateway_redis_failures_total{use="memory"}': "0+2x30"}, "15m", True),
    Case("GatewayRedisFailing", {'gateway_redis_failures_total{use="memory"}': "0 1x30"}, "15m", False),
    Case(
        "GatewayPoliciesDiffer",
        {'gateway_policy_info{hash="a", instance="1"}': "1x30", 'gateway_policy_info{hash="b", instance="2"}': "1x30"},
        "16m",
        True,
    ),
    Case(
        "GatewayPoliciesDiffer",
        {'gateway_policy_info{hash="a", instance="1"}': "1x30", 'gateway_policy_info{hash="a", instance="2"}': "1x30"},
        "16m",
        False,
    ),
    Case("GatewayPolicyRefused", {'gateway_policy_reload_success{instance="a"}': "1 0x9"}, "5m", True),
    Case("GatewayPolicyRefused", {'gateway_policy_reload_success{instance="a"}': "1 0 1x9"}, "5m", False),
    Case("GatewayAlertsUnreadable", {'gateway_alerts_quarantined_total{source="native"}': "_x4 1x20"}, "6m", True),
    Case("GatewayAlertsUnreadable", {'gateway_alerts_quarantined_total{source="native"}': "1x5 2x20"}, "20m", True),
    Case(
        "GatewayAlertsUnreadable", {'gateway_bodies_refused_total{source="native", status="400"}': "_ 1x9"}, "5m", True
    ),
    Case("GatewayAlertsUnreadable", {'gateway_alerts_quarantined_total{source="native"}': "1x60"}, "40m", False),
    Case(
        "GatewayRetrainingFailed", {'gateway_triggers_ended_total{route="a", outcome="lost"}': "_x9 1x20"}, "12m", True
    ),
    Case(
        "GatewayRetrainingFailed",
        {'gateway_triggers_ended_total{route="a", outcome="success"}': "0+1x20"},
        "12m",
        False,
    ),
    Case("GatewayProbeFailing", {'gateway_probe_ok{probe="orchestrator"}': "1 0x20"}, "15m", True),
    Case("GatewayProbeFailing", {'gateway_probe_ok{probe="orchestrator"}': "0x5 1x20"}, "15m", False),
    Case("Watchdog", {}, "0m", True),
    Case("GatewayNoSuccess", {'gateway_last_success_timestamp_seconds{route="a"}': "0x2400"}, "8d1h", True, "5m"),
    Case("GatewayNoSuccess", {'gateway_last_success_timestamp_seconds{route="a"}': "0x2400"}, "7d", False, "5m"),
]


def rules() -> dict[str, Path]:
    """Every alert that we ship, with its file."""
    found: dict[str, Path] = {}
    for file in FILES:
        content: dict[str, Any] = yaml.safe_load(file.read_text())
        for name in [rule["alert"] for group in content["groups"] for rule in group["rules"]]:
            assert name not in found, f"{name} stands twice"
            found[name] = file
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_prometheus_takes_the_file(file: Path) -> None:
    subprocess.run([require_binary("promtool"), "check", "rules", file], check=True, capture_output=True)


@pytest.mark.parametrize("alert", rules())
def test_every_alert_is_shown_to_fire_and_to_stay_quiet(alert: str) -> None:
    always = alert == "Watchdog"  # It is quiet only where nobody evaluates it.
    assert {case.fires for case in CASES if case.alert == alert} == ({True} if always else {True, False})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{'fires' if case.fires else 'quiet'}")
def test_an_alert_fires_when_it_should_and_only_then(case: Case, tmp_path: Path) -> None:
    expected = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}}) or vector(0)'
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    test = {
        "rule_files": [str(rules()[case.alert])],
        "evaluation_interval": case.every,
        "tests": [
            {
                "interval": case.every,
                "input_series": series,
                "promql_expr_test": [
                    {"expr": expected, "eval_time": case.at, "exp_samples": [{"value": int(case.fires)}]}
                ],
            }
        ],
    }
    file = write_yaml(tmp_path / "test.yml", test)
    done = subprocess.run([require_binary("promtool"), "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
