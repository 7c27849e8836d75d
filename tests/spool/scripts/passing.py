"""What is not spooled, as people use it: prompts, assessments, data sets, webhooks, renames, pages of searches, errors.

Each function whose name begins with `pass_` uses MLflow in an experiment of its own, the way and its name. It returns what
it has read back, without ids. Prints the outcome of each, by way: what it returned, its error, and the seconds that it took.
WAYS: tracking URIs by their names, as JSON. PASS: names of functions, with commas.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import AssessmentSource, Expectation
from mlflow.genai import label_schemas, review_queues
from mlflow.genai.label_schemas import InputPassFail
from mlflow.genai.scorers import Guidelines

client = mlflow.MlflowClient()  # of the way that goes on
Shown = Callable[[Any], Any]
THERE = ("way-plain", "way-spooled")  # the ways on which MLflow answers


def experiment_of(name: str) -> str:
    found = mlflow.get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


def paged(search: Callable[[str | None], Any], shown: Shown) -> list[list[Any]]:
    """What every page of a search shows."""
    pages, token = list[list[Any]](), None
    while not pages or token:
        page = search(token)
        pages.append([shown(item) for item in page])
        token = page.token
    return pages


def error_of(call: Callable[[], Any]) -> tuple[str, str]:
    """The type and the code of what it raises. That MLflow is away is no answer."""
    try:
        call()
    except Exception as error:
        if type(error).__name__ == "SpoolOffline":
            raise
        return type(error).__name__, str(getattr(error, "error_code", ""))
    return "", ""


def ask(question: str) -> str:
    return question.upper()


def traced(question: str) -> str:
    asked: Any = mlflow.trace(ask)
    asked(question)
    mlflow.flush_trace_async_logging()
    return str(mlflow.get_last_active_trace_id())


def pass_webhooks(name: str) -> Any:
    url = "http://127.0.0.1:9/hook"
    made = client.create_webhook(name, url, ["model_version.created"], description="d", status="DISABLED")
    events = ["registered_model.created", "prompt.created"]
    changed = client.update_webhook(made.webhook_id, name=f"{name}-b", events=events, status="ACTIVE")
    other = client.create_webhook(f"{name}-c", url, ["model_version_tag.set"], secret="s" * 32)
    pages = paged(lambda token: client.list_webhooks(1, token), lambda hook: hook.name)
    found = client.get_webhook(made.webhook_id)
    client.delete_webhook(made.webhook_id)
    client.delete_webhook(other.webhook_id)
    gone = error_of(lambda: client.get_webhook(made.webhook_id))
    shown = [(hook.name, str(hook.status), [str(event) for event in hook.events]) for hook in (made, changed, found)]
    listed = sorted(each for page in pages for each in page if each.startswith(name))
    return shown, listed, gone


def pass_datasets(name: str) -> Any:
    data = mlflow.genai.create_dataset(name=name, experiment_id=experiment_of(name), tags={"a": "b", "wrong": "x"})
    data.merge_records([{"inputs": {"question": "why"}, "expectations": {"answer": "so"}, "tags": {"k": "v"}}])
    data.merge_records([{"inputs": {"question": "who"}}])
    mlflow.genai.set_dataset_tags(dataset_id=data.dataset_id, tags={"c": "d"})
    mlflow.genai.delete_dataset_tag(dataset_id=data.dataset_id, key="wrong")
    other = client.create_experiment(f"{name}-2")
    both = len(client.add_dataset_to_experiments(data.dataset_id, [other]).experiment_ids)
    single = len(client.remove_dataset_from_experiments(data.dataset_id, [other]).experiment_ids)
    found = mlflow.genai.get_dataset(dataset_id=data.dataset_id)
    rows = sorted(str(row) for row in found.to_df()[["inputs", "expectations"]].to_dict("records"))
    tags = {key: found.tags[key] for key in ("a", "c")}
    named = [each.name for each in mlflow.genai.search_datasets(filter_string=f"name = '{name}'")]
    mlflow.genai.delete_dataset(dataset_id=data.dataset_id)
    gone = error_of(lambda: mlflow.genai.get_dataset(dataset_id=data.dataset_id))
    return found.name, tags, "wrong" in found.tags, rows, both, single, named, gone


def pass_assessments(name: str) -> Any:
    trace = traced("why")
    person = AssessmentSource("HUMAN", "alice")
    good = mlflow.log_feedback(trace_id=trace, name="good", value=True, rationale="r", source=person)
    wanted = mlflow.log_expectation(trace_id=trace, name="answer", value="WHY")
    mlflow.update_assessment(trace, wanted.assessment_id, Expectation(name="answer", value="SO"))
    mlflow.override_feedback(trace_id=trace, assessment_id=good.assessment_id, value=False)
    mlflow.log_feedback(trace_id=trace, name="late", error=ValueError("no"))
    read = mlflow.get_assessment(trace, wanted.assessment_id).value
    shown = sorted((each.name, str(each.value), bool(each.valid)) for each in mlflow.get_trace(trace).info.assessments)
    mlflow.delete_assessment(trace, wanted.assessment_id)
    left = sorted(each.name for each in mlflow.get_trace(trace).info.assessments)
    return read, shown, left, error_of(lambda: mlflow.get_assessment(trace, wanted.assessment_id))


def pass_traces(name: str) -> Any:
    traces = [traced(question) for question in ("why", "who", "how")]
    mlflow.set_trace_tag(traces[0], "team", "risk")
    mlflow.set_trace_tag(traces[0], "wrong", "x")
    mlflow.delete_trace_tag(traces[0], "wrong")
    where = [experiment_of(name)]
    found = mlflow.search_traces(locations=where, filter_string="tags.team = 'risk'", return_type="list")
    pages = paged(
        lambda token: client.search_traces(locations=where, max_results=2, page_token=token),
        lambda trace: trace.info.request_preview,
    )
    with mlflow.start_run() as run:
        client.link_traces_to_run(traces[:2], run.info.run_id)
    linked = mlflow.search_traces(locations=where, run_id=run.info.run_id, return_type="list")
    deleted = client.delete_traces(where[0], trace_ids=traces[1:])
    spans = [(span.name, span.inputs, span.outputs) for span in mlflow.get_trace(traces[0]).data.spans]
    left = [trace.info.request_preview for trace in mlflow.search_traces(locations=where, return_type="list")]
    questions = sorted(question for page in pages for question in page)
    return spans, [trace.info.tags["team"] for trace in found], len(pages), questions, len(linked), deleted, left


def pass_renames(name: str) -> Any:
    client.create_registered_model(f"{name}-before", tags={"a": "b"})
    version = client.create_model_version(f"{name}-before", "s3://models/1", await_creation_for=None)
    client.rename_registered_model(f"{name}-before", f"{name}-after")
    renamed = client.get_registered_model(f"{name}-after")
    again = client.get_model_version(f"{name}-after", version.version)
    gone = error_of(lambda: client.get_registered_model(f"{name}-before"))
    client.create_model_version(f"{name}-after", "s3://models/2", await_creation_for=None)
    made = client.create_experiment(f"{name}-old")
    client.rename_experiment(made, f"{name}-new")
    experiments = [client.get_experiment(made).name, client.get_experiment_by_name(f"{name}-old")]
    versions = sorted(each.source for each in client.search_model_versions(f"name='{name}-after'"))
    return renamed.name, renamed.tags, again.name, again.source, gone, experiments, versions


def pass_pages(name: str) -> Any:
    for number in range(5):
        with mlflow.start_run(run_name=f"run-{number}"):
            mlflow.log_metric("loss", number)
        client.create_registered_model(f"{name}-{number}")
        client.create_model_version(f"{name}-0", f"s3://models/{number}", await_creation_for=None)
        client.create_experiment(f"{name}-{number}")
        mlflow.create_external_model(name=f"agent-{number}", model_type="agent")
    where = [experiment_of(name)]
    named = f"name LIKE '{name}-%'"
    by_number = [{"field_name": "name", "ascending": True}]
    return [
        paged(
            lambda token: client.search_runs(where, "metrics.loss > 0", 1, 2, ["metrics.loss DESC"], token), run_name
        ),
        paged(lambda token: client.search_registered_models(named, 2, ["name ASC"], token), lambda model: model.name),
        paged(lambda token: client.search_experiments(1, 2, named, ["name ASC"], token), lambda found: found.name),
        paged(
            lambda token: client.search_model_versions(f"name='{name}-0'", 2, ["version_number ASC"], token),
            lambda version: version.source,
        ),
        paged(
            lambda token: client.search_logged_models(where, None, None, 2, by_number, token), lambda model: model.name
        ),
        list(mlflow.search_runs(experiment_names=[name], max_results=3, order_by=["metrics.loss ASC"])["metrics.loss"]),
    ]


def run_name(run: Any) -> str:
    return str(run.info.run_name)


def pass_scorers(name: str) -> Any:
    where = experiment_of(name)
    for guidelines in ("Be polite", "Be brief"):
        Guidelines(name="style", guidelines=guidelines, model="openai:/gpt-4o").register(experiment_id=where)
    listed = [(each.name, each.guidelines) for each in mlflow.genai.list_scorers(experiment_id=where)]
    first = mlflow.genai.get_scorer(name="style", experiment_id=where, version=1)
    mlflow.genai.delete_scorer(name="style", experiment_id=where, version="all")
    return listed, first.guidelines, len(mlflow.genai.list_scorers(experiment_id=where))


def exact(outputs: str, expectations: dict[str, Any]) -> bool:
    return bool(outputs == expectations["answer"])


def pass_evaluation(name: str) -> Any:
    asked = {"why": "WHY", "who": "who"}
    data = [{"inputs": {"question": each}, "expectations": {"answer": answer}} for each, answer in asked.items()]
    judge: Any = mlflow.genai.scorer(exact)
    found = mlflow.genai.evaluate(data=data, predict_fn=ask, scorers=[judge])
    traces = mlflow.search_traces(locations=[experiment_of(name)], return_type="list")
    return found.metrics, sorted(str(each.value) for trace in traces for each in trace.info.assessments)


def pass_mcp_servers(name: str) -> Any:
    server = f"com.example/{name}"
    client.create_mcp_server(server, description="d")
    client.set_mcp_server_tag(server, "team", "risk")
    client.update_mcp_server(server, description="e")
    found = client.get_mcp_server(server)
    pages = paged(
        lambda token: client.search_mcp_servers(f"name = '{server}'", page_token=token), lambda each: each.name
    )
    client.delete_mcp_server_tag(server, "team")
    client.delete_mcp_server(server)
    return found.name, found.description, found.tags, pages, error_of(lambda: client.get_mcp_server(server))


def pass_reviews(name: str) -> Any:
    schema = label_schemas.create_label_schema("correct", type="feedback", input=InputPassFail("yes", "no"))
    queue = review_queues.create_review_queue("mine", queue_type="custom", schema_ids=[schema.schema_id])
    review_queues.add_items_to_review_queue(queue.queue_id, item_ids=[traced("why")])
    listed = [each.name for each in review_queues.list_review_queues(experiment_id=experiment_of(name))]
    items = [str(item.status) for item in review_queues.list_review_queue_items(queue.queue_id)]
    review_queues.delete_review_queue(queue.queue_id)
    schemas = sorted(each.name for each in label_schemas.list_label_schemas(experiment_of(name)))
    label_schemas.delete_label_schema(schema_id=schema.schema_id)
    return listed, items, schemas


def pass_errors(name: str) -> Any:
    run = client.create_run(experiment_of(name)).info.run_id
    client.log_param(run, "depth", 6)
    calls: list[Callable[[], Any]] = [
        lambda: client.get_run("0" * 32),
        lambda: client.get_run("no id"),
        lambda: client.log_param(run, "depth", 7),
        lambda: client.log_metric(run, "", 1.0),
        lambda: client.log_metric("0" * 32, "loss", 1.0),
        lambda: client.create_experiment(name),
        lambda: client.get_experiment("999999"),
        lambda: client.search_runs([experiment_of(name)], "nonsense ="),
        lambda: client.search_runs([experiment_of(name)], page_token="nonsense"),
        lambda: client.get_registered_model(f"{name}-none"),
        lambda: client.delete_registered_model(f"{name}-none"),
        lambda: client.create_model_version(f"{name}-none", "s3://x", await_creation_for=None),
        lambda: client.get_model_version_by_alias(f"{name}-none", "prod"),
        lambda: client.get_logged_model("m-" + "0" * 32),
        lambda: client.delete_tag(run, "none"),
        lambda: client.restore_run("0" * 32),
        lambda: client.get_trace("tr-" + "0" * 32),
        lambda: mlflow.log_feedback(trace_id="tr-" + "0" * 32, name="good", value=True),
        lambda: mlflow.genai.get_dataset(dataset_id="d-" + "0" * 32),
        lambda: mlflow.genai.load_prompt(f"prompts:/{name}-none/1"),
        lambda: mlflow.artifacts.load_text(f"runs:/{run}/none.txt"),
        lambda: client.list_artifacts("0" * 32),
    ]
    return [error_of(call) for call in calls]


def gone(way: str, uri: str) -> dict[str, Any]:
    """The outcomes of one way."""
    global client
    os.environ["MLFLOW_SPOOL_PROBE_TIMEOUT"] = "3" if way in THERE else "0.5"  # MLflow may be slow, on a busy machine.
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    outcomes: dict[str, Any] = {}
    for name in os.environ["PASS"].split(","):
        experiment = f"{way}-{name.replace('_', '-')}"
        mlflow.set_experiment(experiment)
        began = time.monotonic()
        try:
            outcomes[name] = {"returned": globals()[f"pass_{name}"](experiment)}
        except Exception as error:
            outcomes[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
        outcomes[name]["seconds"] = time.monotonic() - began
    return outcomes


if __name__ == "__main__":
    ways = json.loads(os.environ["WAYS"])
    print(json.dumps({way: gone(way, uri) for way, uri in ways.items()}, default=str))
