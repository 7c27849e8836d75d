"""Spans as MLflow's server takes them: OpenTelemetry's protocol, which is no JSON of MLflow's REST API."""

from typing import Any

from mlflow.entities.trace_info import TraceInfo

PATH = "/v1/traces"
EXPERIMENT = "x_mlflow_experiment_id"  # a header
KIND = "application/x-protobuf"
#: A tag of a trace whose spans MLflow has by that path, so that its client does not upload them as a file.
LOCATION, IN_THE_STORE = "mlflow.trace.spansLocation", "TRACKING_STORE"


def content_of(spans: list[Any]) -> bytes:
    """A request with these spans. Raises ImportError with an MLflow that sends no spans."""
    from mlflow.tracing.utils.otlp import resource_to_otel_proto
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.CopyFrom(resource_to_otel_proto(getattr(spans[0]._span, "resource", None)))
    group.scope_spans.add().spans.extend(span.to_otel_proto() for span in spans)
    return bytes(request.SerializeToString())


def dropped(trace_info: TraceInfo) -> TraceInfo:
    """The trace as if MLflow had it with its spans: nobody asks for them any more."""
    shown = trace_info.to_dict()
    return TraceInfo.from_dict({**shown, "tags": {**shown.get("tags", {}), LOCATION: IN_THE_STORE}})
