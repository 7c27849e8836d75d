"""Which test fails when a key of the policy file, or a setting, is ignored.

tests/unit/test_every_key.py holds the table to the models: a key without a row fails there, and so does a row whose test is
gone or whose file never names the key. tests/integration/test_ignored_keys.py runs the test of a policy's key with the key
ignored, and it must fail: with PROVE=1 that of each key. Who adds a key adds a row.
"""

# ruff: noqa: E501 (The name of a test is as long as it is.)

_SEVERAL = (
    "tests/acceptance/test_several_airflows.py::test_each_route_starts_its_runs_in_its_own_airflow_with_its_own_login"
)
_TOKEN = "tests/acceptance/test_several_airflows.py::test_a_login_may_be_a_token_or_a_file_that_holds_one"
_LOAD = "tests/unit/test_policy_load.py::"
_OUTCOMES = "tests/acceptance/test_outcomes.py::"
_SCHEDULES = "tests/acceptance/test_schedules.py::"
_FIRES = (
    "tests/acceptance/test_firing_starts_dag_run.py::test_a_firing_alert_starts_one_dag_run_that_is_followed_to_its_end"
)
_SIGNED = "tests/integration/test_api_signatures.py::"
_TOKENS = "tests/integration/test_api_tokens.py::"
_MUTE = "tests/acceptance/test_mute.py::test_an_alert_in_a_mute_fires_when_it_ends_without_another_notification"
_LIMIT = "tests/unit/test_rules_limit.py::test_a_route_is_full_until_the_oldest_counted_fire_leaves"
_RELOAD = "tests/acceptance/test_policy_reload.py::"
_HOOK = "tests/integration/test_api_mlflow_webhooks.py::"
_RULES = "tests/unit/test_promotion_rules.py::test_what_a_paper_comes_to"
_CONFIRM = "tests/acceptance/test_confirm.py::test"
_INTERVALS = "tests/unit/test_intervals.py::test_an_interval_holds_when_alertmanagers_does"
_KINDS = "tests/unit/test_receivers.py::test_"
_TOLD = "tests/unit/test_policy_receivers.py::test_an_event_without_a_line_is_told_to_everybody_and_one_with_an_empty_list_to_nobody"
_ROUTE_TOLD = "tests/unit/test_policy_receivers.py::test_a_route_speaks_for_itself_event_by_event"
_MLFLOW_LOGIN = "tests/unit/test_tracking.py::test_the_login_of_the_policy_is_the_one_that_is_sent"
_PLACES = "tests/acceptance/test_hand_over_places.py::test_a_record_goes_out_with_its_login_and_to_its_workspace_and_waits_for_nobody_else"
_LOGIN_PARTS = ("username", "password", "token", "token_file")
_DEADMAN = "tests/acceptance/test_deadman.py::test_"
_KEYS = "tests/acceptance/test_keys_matter.py::test_"
_PROXY = "tests/ui/test_proxy_users.py::test_"
_SETTINGS = "tests/acceptance/test_settings_matter.py::test_"
_TELLING = "tests/acceptance/test_telling.py::test_"
_LINEAGE = "tests/mlflow/test_lineage.py::test_the_policy_says_how_long_to_wait_before_judging_and_how_often_to_look"

_EFFECT = "tests/acceptance/test_effects.py::test_"
_NEWS = "tests/acceptance/test_news.py::test_a_"
_NO_EFFECT = "tests/acceptance/test_no_effect.py::test_"
_PROBATION = "tests/acceptance/test_probation.py::test_"
_ACCESS = "tests/unit/test_access.py::test_"


def _access(entry: str, *, login: bool = True) -> dict[str, str]:
    """The rows of the keys that say how to get into a server."""
    rows = {
        f"{entry}.headers": _ACCESS + "the_headers_of_an_entry_go_with_every_request",
        f"{entry}.ca_file": _ACCESS + "a_ca_file_that_cannot_be_used_is_named_and_nothing_is_sent",
    }
    keys = ("auth", "auth.username", "auth.password", "auth.token", "auth.token_file") if login else ()
    return rows | {f"{entry}.{key}": _ACCESS + "each_kind_of_login_is_sent" for key in keys}


#: By the path of the key in the file, without the indexes of lists.
POLICY: dict[str, str] = {
    "version": "tests/unit/test_policy_errors.py::test_mistakes_at_the_top_are_told",
    "airflow": _SEVERAL,
    "airflow.name": _SEVERAL,
    "airflow.url": _SEVERAL,
    "airflow.api": "tests/acceptance/test_airflow2.py::test_an_alert_starts_one_run_without_a_logical_date_and_it_is_followed_to_its_end",
    "airflow.auth": _SEVERAL,
    "airflow.auth.username": _SEVERAL,
    "airflow.auth.password": "tests/acceptance/test_reload_airflows.py::test_a_password_that_is_corrected_in_the_file_is_used_at_once",
    "airflow.auth.token": _TOKEN,
    "airflow.auth.token_file": _TOKEN,
    **_access("airflow", login=False),
    "airflow.max_parallel": "tests/acceptance/test_max_parallel.py::test_forty_groups_run_four_at_a_time_and_forty_in_the_end",
    "defaults": _LOAD + "test_a_value_comes_from_the_route_or_else_from_defaults",
    "routes": _LOAD + "test_the_first_route_whose_matchers_all_hold_takes_the_alert",
    "routes.name": "tests/unit/test_conf.py::test_the_conf_says_who_asks_and_why",
    "routes.match": _LOAD + "test_the_first_route_whose_matchers_all_hold_takes_the_alert",
    "routes.group_by": _LOAD + "test_a_group_is_exactly_group_by_in_its_order_and_what_is_missing_is_empty",
    "routes.debounce": "tests/acceptance/test_debounce.py::test_a_flap_inside_the_debounce_starts_nothing_and_says_so",
    "routes.cooldown": "tests/acceptance/test_policy_changes.py::test_a_shortened_cooldown_counts_at_once",
    "routes.refire": _OUTCOMES + "test_refire_false_gives_an_episode_one_success_and_a_new_episode_another",
    "routes.on_failure": _OUTCOMES + "test_with_on_failure_keep_a_failed_run_keeps_the_cooldown",
    "routes.failure_backoff": "tests/unit/test_facts.py::test_the_backoff_doubles_and_never_passes_the_longer_of_cooldown_and_backoff",
    "routes.run_timeout": _OUTCOMES
    + "test_a_run_past_its_run_timeout_that_succeeds_later_is_told_lost_once_and_never_doubled",
    "routes.stale_after": "tests/acceptance/test_debounce.py::test_an_alert_that_goes_silent_while_held_is_stale_and_starts_nothing",
    "routes.effect": _EFFECT + "settle_of_the_route_is_how_long_its_alerts_may_still_fire",
    "routes.effect.settle": _EFFECT + "settle_of_the_route_is_how_long_its_alerts_may_still_fire",
    "routes.effect.watch": _EFFECT + "watch_of_the_route_is_how_long_no_alert_of_the_group_may_begin",
    "routes.on_no_effect": _NO_EFFECT + "an_alert_that_never_ends_gets_three_retrains_and_not_one_a_day",
    "routes.on_no_effect.after": _NO_EFFECT + "an_alert_that_never_ends_gets_three_retrains_and_not_one_a_day",
    "routes.on_no_effect.then": _NO_EFFECT + "an_alert_that_never_ends_gets_three_retrains_and_not_one_a_day",
    "routes.on_no_effect.receivers": _ROUTE_TOLD,
    "routes.limit": "tests/acceptance/test_limit.py::test_the_fourth_group_waits_until_the_first_fire_leaves_the_time",
    "routes.limit.triggers": _LIMIT,
    "routes.limit.per": _LIMIT,
    "routes.mute": _MUTE,
    "routes.openlineage": "tests/unit/test_conf.py::test_with_a_namespace_the_trigger_is_the_parent_in_openlineage_unless_the_user_names_another",
    "routes.lineage": "tests/unit/test_lineage_rules.py::test_of_a_route_whose_runs_train_nothing_no_run_is_missed",
    "routes.mode": "tests/acceptance/test_shadow.py::test_what_would_fire_is_told_and_nothing_is_started",
    "routes.confirm": f"{_CONFIRM}_a_confirmed_alert_fires_at_once_and_is_asked_for_by_its_group",
    "routes.confirm.prometheus": f"{_CONFIRM}_a_confirmed_alert_fires_at_once_and_is_asked_for_by_its_group",
    "routes.confirm.query": f"{_CONFIRM}_a_confirmed_alert_fires_at_once_and_is_asked_for_by_its_group",
    "routes.confirm.on_error": f"{_CONFIRM}_when_there_is_no_answer_on_error_says_what_counts",
    **_access("routes.confirm"),
    "routes.notify": _ROUTE_TOLD,
    "routes.notify.trigger_dead": _ROUTE_TOLD,
    "routes.notify.trigger_waiting": _TOLD,
    "routes.notify.trigger_lost": _ROUTE_TOLD,
    "routes.notify.run_failed": _ROUTE_TOLD,
    "routes.notify.no_effect": _TOLD,
    "routes.notify.run_succeeded": _NEWS + "run_that_ends_well_is_announced_to_those_whom_its_route_names",
    "routes.notify.promoted": _NEWS + "promotion_is_announced_with_the_metrics_of_both_versions",
    "routes.dag": _FIRES,
    "routes.dag.airflow": _SEVERAL,
    "routes.dag.id": _RELOAD + "test_a_dag_that_changes_while_a_trigger_is_held_is_the_one_that_runs",
    "routes.dag.conf": "tests/unit/test_conf.py::test_the_conf_says_who_asks_and_why",
    "sources": "tests/integration/test_api_sources.py::test_the_same_story_comes_to_the_same_decisions_whoever_tells_it",
    "sources.name": "tests/integration/test_api_sources.py::test_the_same_story_comes_to_the_same_decisions_whoever_tells_it",
    "sources.secret": _SIGNED + "test_what_is_not_signed_or_not_well_is_refused_counted_and_no_alert",
    "sources.alerts": "tests/unit/test_alerts_mapped.py::test_a_body_may_hold_several",
    "sources.alert_id": "tests/unit/test_alerts_mapped.py::test_the_documented_event_is_the_alert_that_the_native_body_would_be",
    "sources.severity": "tests/unit/test_alerts_mapped.py::test_the_documented_event_is_the_alert_that_the_native_body_would_be",
    "sources.timestamp": "tests/unit/test_alerts_mapped.py::test_the_documented_event_is_the_alert_that_the_native_body_would_be",
    "sources.timestamp_unit": "tests/unit/test_alerts_mapped.py::test_a_number_is_a_time_only_where_its_unit_is_named",
    "sources.status": "tests/unit/test_alerts_mapped.py::test_the_words_of_the_body_say_whether_it_fires",
    "sources.states": "tests/unit/test_alerts_mapped.py::test_the_words_of_the_body_say_whether_it_fires",
    "sources.labels": "tests/unit/test_alerts_mapped.py::test_a_label_is_the_first_choice_that_is_there",
    "sources.annotations": "tests/unit/test_alerts_mapped.py::test_the_documented_event_is_the_alert_that_the_native_body_would_be",
    "time_intervals": _MUTE,
    "time_intervals.name": _MUTE,
    "time_intervals.time_intervals": _MUTE,
    "time_intervals.time_intervals.times": _INTERVALS,
    "time_intervals.time_intervals.times.start_time": _INTERVALS,
    "time_intervals.time_intervals.times.end_time": _INTERVALS,
    "time_intervals.time_intervals.weekdays": _INTERVALS,
    "time_intervals.time_intervals.days_of_month": _INTERVALS,
    "time_intervals.time_intervals.months": _INTERVALS,
    "time_intervals.time_intervals.years": _INTERVALS,
    "time_intervals.time_intervals.location": _INTERVALS,
    "schedules": _SCHEDULES + "test_it_starts_a_run_when_it_is_due_and_says_so",
    "schedules.name": _SCHEDULES + "test_it_starts_a_run_when_it_is_due_and_says_so",
    "schedules.cron": _SCHEDULES + "test_it_starts_a_run_when_it_is_due_and_says_so",
    "schedules.timezone": _SCHEDULES + "test_it_starts_a_run_when_it_is_due_and_says_so",
    "schedules.route": _SCHEDULES + "test_it_starts_a_run_when_it_is_due_and_says_so",
    "schedules.group": _SCHEDULES + "test_it_starts_a_run_when_it_is_due_and_says_so",
    "schedules.catch_up": _SCHEDULES + "test_what_was_missed_while_no_gateway_ran_is_made_up_for_once_or_not_at_all",
    "deadman": _DEADMAN + "a_switch_is_new_then_due_then_down_and_up_again_and_its_incident_follows",
    "deadman.name": _DEADMAN + "a_switch_is_new_then_due_then_down_and_up_again_and_its_incident_follows",
    "deadman.expect": _DEADMAN + "a_retrain_of_ours_counts_and_a_failed_one_does_not",
    "deadman.expect.retrain": _DEADMAN + "a_retrain_of_ours_counts_and_a_failed_one_does_not",
    "deadman.expect.group": _DEADMAN + "a_retrain_of_ours_counts_and_a_failed_one_does_not",
    "deadman.expect.outcome": _DEADMAN + "a_retrain_of_ours_counts_and_a_failed_one_does_not",
    "deadman.expect.started_by": _DEADMAN + "a_switch_that_wants_our_own_runs_counts_no_other",
    "deadman.for_each": "tests/unit/test_policy_deadman.py::test_for_each_makes_a_switch_of_each_combination",
    "deadman.match": _DEADMAN + "a_watchdog_that_fires_keeps_its_switch_up_and_its_end_does_not",
    "deadman.timezone": "tests/unit/test_policy_deadman.py::test_every_is_a_duration_or_a_cron_expression_in_a_time_zone",
    "deadman.every": "tests/unit/test_policy_deadman.py::test_every_is_a_duration_or_a_cron_expression_in_a_time_zone",
    "deadman.grace": _DEADMAN + "a_switch_is_new_then_due_then_down_and_up_again_and_its_incident_follows",
    "deadman.receivers": _KEYS + "receivers_and_repeat_of_a_switch_say_who_is_told_and_how_often",
    "deadman.repeat": _KEYS + "receivers_and_repeat_of_a_switch_say_who_is_told_and_how_often",
    "receivers": _TELLING + "a_failed_run_is_told_once_and_resolved_by_the_next_that_succeeds",
    "receivers.name": _KEYS + "receivers_and_repeat_of_a_switch_say_who_is_told_and_how_often",
    "receivers.pagerduty": _KINDS + "pagerduty",
    "receivers.pagerduty.routing_key": _KINDS + "pagerduty",
    "receivers.pagerduty.url": _TELLING + "a_failed_run_is_told_once_and_resolved_by_the_next_that_succeeds",
    "receivers.opsgenie": _KINDS + "opsgenie_and_jira_service_management",
    "receivers.opsgenie.api_key": _KINDS + "opsgenie_and_jira_service_management",
    "receivers.opsgenie.url": _KINDS + "opsgenie_and_jira_service_management",
    "receivers.slack": _KINDS + "slack",
    "receivers.slack.url": _KINDS + "slack",
    "receivers.webhook": _KINDS + "a_webhook_is_signed_over_its_exact_bytes",
    "receivers.webhook.url": _KINDS + "a_webhook_is_signed_over_its_exact_bytes",
    "receivers.webhook.secret": _KINDS + "a_webhook_is_signed_over_its_exact_bytes",
    "receivers.alertmanager": _KINDS + "alertmanager",
    "receivers.alertmanager.url": _KINDS + "alertmanager",
    **_access("receivers.slack", login=False),
    **_access("receivers.webhook"),
    **_access("receivers.alertmanager"),
    "notify": _TOLD,
    "notify.orphan": _TOLD,
    "notify.trigger_dead": _TOLD,
    "notify.trigger_waiting": _TOLD,
    "notify.trigger_lost": _TOLD,
    "notify.run_failed": _TOLD,
    "notify.no_effect": _TOLD,
    "notify.run_succeeded": _TOLD,
    "notify.promoted": _TOLD,
    "notify.promotion_blocked": _TOLD,
    "notify.probation_failed": _TOLD,
    "mlflow": _MLFLOW_LOGIN,
    "mlflow.tracking_uri": _MLFLOW_LOGIN,
    **dict.fromkeys(("mlflow.logins", *(f"mlflow.logins.{part}" for part in _LOGIN_PARTS)), _PLACES),
    "mlflow.auth": _MLFLOW_LOGIN,
    "mlflow.auth.username": _MLFLOW_LOGIN,
    "mlflow.auth.password": _MLFLOW_LOGIN,
    "mlflow.auth.token": _MLFLOW_LOGIN,
    "mlflow.auth.token_file": _MLFLOW_LOGIN,
    **_access("mlflow", login=False),
    "lineage": _LINEAGE,
    "lineage.every": _LINEAGE,
    "lineage.grace": _LINEAGE,
    "promotions": "tests/acceptance/test_promotion.py::test_the_first_version_is_promoted_and_a_worse_one_is_not",
    "promotions.model": _KEYS + "model_of_a_promotion_is_the_whole_name",
    "promotions.registry": "tests/mlflow/test_promotion_registries.py::test_sagemaker_keeps_what_it_knew_and_the_old_one_stays_approved",
    "promotions.to": "tests/acceptance/test_promotion.py::test_a_version_goes_from_mark_to_mark",
    "promotions.requires": "tests/acceptance/test_promotion.py::test_a_version_goes_from_mark_to_mark",
    "promotions.require": _RULES,
    "promotions.require.params": _RULES,
    "promotions.require.metrics": _RULES,
    "promotions.require.tags": _RULES,
    "promotions.require.inputs": _RULES,
    "promotions.require.artifacts": _RULES,
    "promotions.rules": "tests/acceptance/test_promotion.py::test_the_first_version_is_promoted_and_a_worse_one_is_not",
    "promotions.on_new_version": _HOOK + "test_a_new_version_is_asked_for_to_each_mark_in_turn",
    "promotions.probation": _PROBATION + "an_alert_that_lasts_gives_the_alias_back_once_and_people_are_paged",
    "promotions.probation.for": _PROBATION + "an_alert_counts_from_one_second_after_the_promotion_to_the_end_of_for",
    "promotions.probation.match": _PROBATION + "only_an_alert_that_matches_and_is_of_the_model_counts",
    "promotions.probation.group": _PROBATION + "only_an_alert_that_matches_and_is_of_the_model_counts",
    "promotions.probation.debounce": _PROBATION + "the_alert_must_last_for_debounce",
    "promotions.probation.then": _PROBATION + "an_alert_that_lasts_gives_the_alias_back_once_and_people_are_paged",
    "promotions.mode": "tests/acceptance/test_promotion.py::test_shadow_records_every_verdict_and_stands_in_nobodys_way",
}

#: By the name of the environment's variable, without GATEWAY_.
SETTINGS: dict[str, str] = {
    "POLICY_FILE": "tests/integration/test_reload.py::test_a_changed_file_is_in_force_after_it_was_asked_to_be_read",
    "DATA_DIR": "tests/integration/test_serve.py::test_with_nothing_set_it_brings_its_servers_and_survives_kill_9",
    "HOST": "tests/integration/test_serve.py::test_a_bind_beyond_loopback_without_tokens_is_refused",
    "PORT": "tests/integration/test_serve.py::test_a_taken_port_is_named",
    "NAME": _SETTINGS + "name_is_what_receivers_know_the_gateway_by",
    "EXTERNAL_URL": _TELLING + "a_failed_run_is_told_once_and_resolved_by_the_next_that_succeeds",
    "DATABASE_URL": "tests/integration/test_serve.py::test_with_urls_set_it_uses_those_and_makes_no_servers",
    "DATABASE_READ_URL": "tests/integration/test_replica.py::test_a_list_and_one_of_it_are_read_from_the_copy",
    "REDIS_URL": "tests/integration/test_serve.py::test_with_urls_set_it_uses_those_and_makes_no_servers",
    "TOKENS_FILE": _TOKENS + "test_a_route_is_closed_without_a_token",
    "GRAFANA_SECRET": _SIGNED + "test_what_is_not_signed_or_not_well_is_refused_counted_and_no_alert",
    "GRAFANA_TIMESTAMP_HEADER": _SIGNED + "test_a_signed_request_is_taken_once",
    "MLFLOW_SECRET": _HOOK + "test_who_does_not_sign_well_is_refused",
    "WEBHOOK_SECRET": _SIGNED + "test_what_is_not_signed_or_not_well_is_refused_counted_and_no_alert",
    "PROXY_USER_HEADER": _PROXY + "the_proxy_names_who_looks_and_who_acts",
    "PROXY_ADDRESSES": _PROXY + "only_the_proxy_names_a_user",
    "PROXY_SCOPES": _PROXY + "a_user_of_the_proxy_has_the_scopes_of_the_setting_and_no_other",
    "MAX_BODY": "tests/integration/test_nasty_bodies.py::test_a_body_over_the_cap_is_refused_however_it_is_sent",
    "BODY_BUDGET": "tests/integration/test_body_budget.py::"
    "test_large_bodies_over_the_budget_are_refused_and_small_ones_are_taken",
    "MAX_ALERTS": "tests/integration/test_nasty_bodies.py::test_more_alerts_than_the_cap_are_refused",
    "RECORD_REPEATS": "tests/acceptance/test_heard.py::test_record_repeats_says_whether_minutes_are_kept",
    "REORDER_WINDOW": _SETTINGS + "reorder_window_says_which_firings_are_one_alert",
    "INTAKE_TIMEOUT": _SETTINGS + "intake_timeout_is_the_longest_that_a_sender_waits",
    "INTAKE_QUEUE": _SETTINGS + "intake_queue_is_how_many_alerts_wait",
    "RATE_LIMIT": _TOKENS + "test_too_many_write_requests_of_one_token_are_told_when_to_come_again",
    "MEMORY_TTL": _SETTINGS + "memory_ttl_is_how_long_redis_remembers",
    "REDIS_PREFIX": "tests/integration/test_intake_memory.py::test_a_memory_of_another_database_changes_no_decision",
    "REDIS_TIMEOUT": _SETTINGS + "redis_timeout_is_the_longest_wait_for_redis",
    "DELIVERY_DEADLINE": "tests/acceptance/test_dag_not_ready.py::test_a_missing_dag_kills_its_trigger_after_the_deadline_by_name",
    "DELIVERY_TIMEOUT": _SETTINGS + "delivery_timeout_ends_an_attempt_that_gets_no_answer",
    "DELIVERY_PARALLEL": _SETTINGS + "delivery_parallel_is_how_many_attempts_are_made_at_once",
    "RETRY_MAX": _SETTINGS + "retry_max_is_the_longest_pause_between_attempts",
    "PAUSED_RETRY": _SETTINGS + "paused_retry_is_how_often_a_paused_dag_is_looked_at",
    "FOLLOW_INTERVAL": _SETTINGS + "follow_interval_is_how_often_an_open_run_is_read",
    "WAITING_NOTICE": _TELLING
    + "a_trigger_that_waits_too_long_is_told_with_what_blocks_it_and_resolved_when_it_starts",
    "NOTICE_REPEAT": _TELLING + "an_open_incident_is_repeated_and_two_groups_are_two_incidents",
    "PING_BODY": "tests/integration/test_api_deadman.py::test_a_ping_is_kept_with_what_it_said",
    "QUEUED_LIMIT": "tests/integration/test_probes.py::test_a_run_that_is_queued_for_long_is_named_and_one_of_others_is_not",
    "BACKLOG_LIMIT": "tests/integration/test_probes.py::test_metadata_is_well_without_mlflow_and_ill_when_it_does_not_answer",
    "WATCHDOG_URL": "tests/integration/test_probes.py::test_the_outside_is_pinged_only_while_all_is_well",
    "WATCHDOG_AUTHORIZATION": "tests/integration/test_probes.py::test_the_outside_is_pinged_only_while_all_is_well",
    "WATCHDOG_INTERVAL": _SETTINGS + "watchdog_interval_is_the_time_between_two_pings",
    "PROBE_CACHE": _SETTINGS + "probe_cache_is_how_long_the_answer_of_a_probe_is_kept",
    "QUARANTINE_ROWS": "tests/integration/test_intake.py::test_the_quarantine_counts_equal_bytes_and_lets_the_oldest_go",
    "QUARANTINE_BODY": "tests/integration/test_intake.py::test_the_quarantine_counts_equal_bytes_and_lets_the_oldest_go",
    "RETENTION": "tests/integration/test_retention.py::test_a_retention_of_zero_keeps_everything",
    "OPEN_DOCS": _TOKENS + "test_a_setting_opens_what_it_names_and_nothing_else",
    "OPEN_METRICS": _TOKENS + "test_a_setting_opens_what_it_names_and_nothing_else",
    "LOG_LEVEL": _SETTINGS + "log_level_is_that_of_every_log",
    "LOG_JSON": _SETTINGS + "log_json_chooses_the_form_of_a_line",
}
