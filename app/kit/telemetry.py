"""Traces by OpenTelemetry, with the extra `otel` and an endpoint in the standard OTEL_* variables. Else nothing happens.

Each trigger has a trace of its own, with the trigger's id as trace id: the UUID in hexadecimal, without dashes. So every
replica, and an attempt after a crash, adds to the same trace, and a DAG run can continue it. FastAPI makes the spans of
HTTP requests by itself if a tracer is set.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, format_span_id, format_trace_id

from app.kit.proxies import is_loopback

log = logging.getLogger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SCOPE: Final = "trigger-gateway"
#: The trace id and span id of the span that is being made, if they must not be random.
_own_ids: ContextVar[tuple[int, int] | None] = ContextVar("own_ids", default=None)


@contextmanager
def telemetry() -> Iterator[None]:
    """Send traces while this is open, if the environment names an endpoint. The rest is sent at the end."""
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if endpoint is None or off:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("%s is set, but there are no traces: install trigger-gateway[otel]", endpoint)
        yield
        return
    provider = tracer_provider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=_direct(os.environ[endpoint]))))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def _direct(endpoint: str) -> Any:
    """A session without the proxies of the environment for a collector on this machine, which none of them can reach. Else
    None: the exporter makes its own."""
    try:
        host = urlsplit(endpoint).hostname or ""
    except ValueError:  # The exporter says so when it sends.
        return None
    if not is_loopback(host):
        return None
    from requests import Session

    session = Session()
    session.trust_env = False
    return session


def tracer_provider() -> Any:
    """The SDK's provider. Its resource and sampler come from OTEL_* variables, and some of its ids from us."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            own = _own_ids.get()
            return own[0] if own else super().generate_trace_id()

        def generate_span_id(self) -> int:
            own = _own_ids.get()
            return own[1] if own else super().generate_span_id()

    named = Resource.create()
    if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: _SCOPE}))
    return TracerProvider(id_generator=Ids(), resource=named, shutdown_on_exit=False)


def traceparent(trigger_id: UUID) -> str | None:
    """The header with which others continue a trigger's trace (W3C Trace Context); None when nothing is traced."""
    provider = trace.get_tracer_provider()
    sampler = getattr(provider, "sampler", None)  # The API's own provider, which does nothing, has none.
    if sampler is None:
        return None
    sampled = sampler.should_sample(None, trigger_id.int, "trigger").decision.is_sampled()
    return f"00-{format_trace_id(trigger_id.int)}-{format_span_id(_root(trigger_id))}-{int(sampled):02x}"


@contextmanager
def span(name: str, trigger_id: UUID, attributes: Mapping[str, str]) -> Iterator[trace.Span]:
    """A span for one step of a trigger, in its trace."""
    header = traceparent(trigger_id)
    flags = TraceFlags(int(header[-2:], 16) if header else 0)
    parent = SpanContext(trigger_id.int, _root(trigger_id), is_remote=True, trace_flags=flags)
    context = trace.set_span_in_context(NonRecordingSpan(parent))
    # The text of an exception may hold a secret, which only the log's filter removes.
    with trace.get_tracer(_SCOPE).start_as_current_span(
        name, context, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
    ) as made:
        yield made


def root_span(name: str, trigger_id: UUID, began: datetime, attributes: Mapping[str, str]) -> None:
    """The root span of a trigger's trace: from the fire until now, when Airflow has its DAG run."""
    token = _own_ids.set((trigger_id.int, _root(trigger_id)))
    try:
        made = trace.get_tracer(_SCOPE).start_span(
            name, Context(), attributes=dict(attributes), start_time=round(began.timestamp() * 1_000_000) * 1000
        )
    finally:
        _own_ids.reset(token)
    made.end()


def _root(trigger_id: UUID) -> int:
    """The id of a trigger's root span: 8 bytes, never 0."""
    return int.from_bytes(hashlib.sha256(trigger_id.bytes).digest()[:8]) or 1
