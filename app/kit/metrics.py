"""Every metric, declared once. Labels have few values: routes, targets, reasons; never a fingerprint or an id."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app import __version__


class Metrics:
    """The gateway's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        build = Gauge("gateway_build_info", "The running version.", ["version"], registry=r)
        build.labels(__version__).set(1)
        self.policy_info = Gauge(
            "gateway_policy_info", "1 for the policy in force; replicas that differ show.", ["hash"], registry=r
        )
        self.policy_reload_success = Gauge(
            "gateway_policy_reload_success",
            "0 while the policy file is refused and an older one is in force.",
            registry=r,
        )
        self.policy_reloaded = Gauge(
            "gateway_policy_last_reload_timestamp_seconds", "When the policy in force was read.", registry=r
        )
        self.loop_failures = Gauge("gateway_loop_failures", "Failed steps in a row of a loop.", ["loop"], registry=r)
        self.items_failed = Counter(
            "gateway_loop_items_failed", "Items that a loop left aside after an unexpected error.", ["loop"], registry=r
        )
        self.tokens_faults = Gauge(
            "gateway_tokens_file_faults",
            "What is wrong with the tokens file: bad lines, or a file not read.",
            registry=r,
        )
        self._of_intake(r)
        self._of_triggers(r)
        self._of_delivery(r)
        self._of_promotions(r)
        self._of_switches(r)

    def _of_promotions(self, r: CollectorRegistry) -> None:
        self.promotions = Counter(
            "gateway_promotions", "Requests to promote or to roll back, by what they came to.", ["state"], registry=r
        )
        self.probations = Counter(
            "gateway_probations",
            "Probations that ended, by what they came to: passed, failed, rolled_back, over.",
            ["state"],
            registry=r,
        )
        self.promotions_open = Gauge("gateway_promotions_open", "Promotions whose change is not settled.", registry=r)

    def _of_intake(self, r: CollectorRegistry) -> None:
        self.alerts = Counter("gateway_alerts", "Alerts acknowledged as durable.", ["source"], registry=r)
        self.alerts_bad = Counter(
            "gateway_alerts_quarantined", "Alerts that could not be read.", ["source"], registry=r
        )
        self.bodies_refused = Counter(
            "gateway_bodies_refused", "Bodies of which nothing could be read.", ["source", "status"], registry=r
        )
        self.not_durable = Counter("gateway_not_durable", "Requests answered 503: not written in time.", registry=r)
        self.decisions = Counter(
            "gateway_decisions", "Decisions by action and reason.", ["route", "action", "reason"], registry=r
        )
        self.waiting_alerts = Gauge("gateway_intake_waiting_alerts", "Alerts that wait for a commit.", registry=r)
        self.waiting_bytes = Gauge("gateway_intake_waiting_bytes", "Bytes of their bodies.", registry=r)
        self.batch_alerts = Histogram(
            "gateway_batch_alerts", "Alerts in one commit.", registry=r, buckets=(1, 2, 5, 10, 20, 50, 100, 500, 2000)
        )
        self.batch_retries = Counter("gateway_batch_retries", "Batches decided again after a conflict.", registry=r)
        self.intake_seconds = Histogram(
            "gateway_intake_seconds",
            "Seconds of a batch by stage: queue, memory, decide, pool, lock, statement, commit.",
            ["stage"],
            registry=r,
            buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 2, 4, 8),
        )
        self.fast_path_failures = Counter(
            "gateway_fast_path_failures",
            "Batches that Postgres decided because the fast path failed, by cause: bug, content.",
            ["cause"],
            registry=r,
        )
        for cause in ("bug", "content"):
            self.fast_path_failures.labels(cause)  # From 0, so that the first failure is an increase.
        self.memory_stale = Counter(
            "gateway_memory_stale", "Batches decided again because Redis was behind Postgres.", registry=r
        )
        self.redis_failures = Counter(
            "gateway_redis_failures",
            "Calls that Redis did not answer, by what went on without it.",
            ["use"],
            registry=r,
        )
        self.replica_failures = Counter(
            "gateway_replica_failures", "Reads that moved to the primary: the read database did not answer.", registry=r
        )
        self.rate_limited = Counter("gateway_rate_limited", "Requests answered 429.", registry=r)

    def _of_triggers(self, r: CollectorRegistry) -> None:
        self.triggers = Gauge("gateway_triggers", "Open triggers by route and state.", ["route", "state"], registry=r)
        self.confirms = Counter(
            "gateway_confirms",
            "Questions to Prometheus before a fire: confirmed, unconfirmed, error.",
            ["route", "result"],
            registry=r,
        )
        self.shadow_triggers = Counter(
            "gateway_shadow_triggers",
            "Triggers that would have fired, of routes in shadow mode.",
            ["route"],
            registry=r,
        )
        self.triggers_ended = Counter(
            "gateway_triggers_ended",
            "Triggers by how they ended: success, failed, lost, gone, dead.",
            ["route", "outcome"],
            registry=r,
        )
        self.effects = Counter(
            "gateway_effects",
            "Triggers by whether they helped: fixed, recurred, not_promoted, no_model, failed, unknown.",
            ["route", "effect"],
            registry=r,
        )
        self.run_seconds = Counter(
            "gateway_run_seconds",
            "Seconds of the DAG runs of triggers whose effect is known.",
            ["route", "effect"],
            registry=r,
        )
        self.pruned = Counter(
            "gateway_pruned_rows", "Rows deleted because they were older than the retention.", ["table"], registry=r
        )
        self.last_success = Gauge(
            "gateway_last_success_timestamp_seconds",
            "End of the newest successful DAG run of a route.",
            ["route"],
            registry=r,
        )
        self.last_success_took = Gauge(
            "gateway_last_success_duration_seconds",
            "From the fire of the newest successful trigger of a route to the end of its DAG run, as it was seen here.",
            ["route"],
            registry=r,
        )

    def _of_delivery(self, r: CollectorRegistry) -> None:
        self.attempts = Counter(
            "gateway_delivery_attempts",
            "Delivery attempts by target, result and code.",
            ["target", "result", "code"],
            registry=r,
        )
        self.outbox_pending = Gauge("gateway_outbox_pending", "Items not yet delivered.", ["target"], registry=r)
        self.outbox_oldest = Gauge(
            "gateway_outbox_oldest_seconds", "Age of the oldest item not yet delivered.", ["target"], registry=r
        )
        self.outbox_dead = Gauge(
            "gateway_outbox_dead", "Dead items: redrive them or let them be.", ["target"], registry=r
        )
        self.metadata_records = Counter(
            "gateway_metadata_records",
            "Writes for MLflow: taken, delivered, or set aside because it refused them for good.",
            ["result"],
            registry=r,
        )
        self.metadata_waiting = Gauge(
            "gateway_metadata_waiting", "Writes for MLflow not yet delivered, and set aside.", ["state"], registry=r
        )
        self.orphans = Gauge(
            "gateway_orphans", "What lacks a link of its lineage, by kind (books).", ["kind"], registry=r
        )
        self.survey_ended = Gauge(
            "gateway_survey_last_end_timestamp_seconds",
            "When the newest whole walk over MLflow came to its end (books).",
            registry=r,
        )
        self.notices_open = Gauge(
            "gateway_notices_open", "Incidents that are open, by event (books).", ["event"], registry=r
        )
        self.breaker_open = Gauge("gateway_breaker_open", "1 while a target is left alone.", ["target"], registry=r)

    def _of_switches(self, r: CollectorRegistry) -> None:
        self.deadman_down = Gauge("gateway_deadman_down", "1 while a switch is down.", ["switch"], registry=r)
        self.deadman_switches = Gauge("gateway_deadman_switches", "Switches by state.", ["state"], registry=r)
        self.deadman_flips = Counter(
            "gateway_deadman_flips", "Changes of a switch's state, by what it became.", ["state"], registry=r
        )
        self.deadman_reads_failed = Counter(
            "gateway_deadman_read_failures",
            "Reads of a DAG's ended runs that Airflow did not answer.",
            ["code"],
            registry=r,
        )
        self.pings = Counter("gateway_pings", "Requests to a switch.", ["kind"], registry=r)
        self.watch_gaps = Counter(
            "gateway_watch_gap_seconds", "Time in which nobody watched, given back to what was awaited.", registry=r
        )
        self.watchdog_pings = Counter(
            "gateway_watchdog_pings", "Pings to GATEWAY_WATCHDOG_URL by how they went.", ["result"], registry=r
        )
        self.probe_ok = Gauge(
            "gateway_probe_ok", "1 while the newest answer of a probe below /health was 200.", ["probe"], registry=r
        )
        self.watched_until = Gauge(
            "gateway_watched_until_timestamp_seconds", "Until when the switches were watched.", registry=r
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
