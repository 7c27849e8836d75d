"""What the journal knows: the answers to reads, in the shapes of MLflow's REST API."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from mlflow_spool.answers import (
    begun_elsewhere,
    experiment_after,
    experiment_of,
    logged_model_of,
    measurements,
    model_of_others,
    registered_of,
    run_of,
    version_in,
)
from mlflow_spool.errors import NotKnown
from mlflow_spool.journal import Journal
from mlflow_spool.questions import drive
from mlflow_spool.records import (
    API,
    CREATES,
    LOCAL_VERSIONS,
    TOKEN,
    Answer,
    Call,
    Kind,
    Record,
    local_version,
    needed,
    text_at,
)
from mlflow_spool.replay import finding

SHOWN = 200  # runs and models of others that are kept as the server showed them last
Ask = Callable[[Call], dict[str, Any]]


class Knowledge:
    """Answers reads from one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def answer(self, call: Call, *, waiting_only: bool) -> dict[str, Any] | None:
        """The answer to a read; None when the journal does not have it.

        waiting_only: answer only what the server cannot know yet, since records of it still wait here. Raises NotKnown for
        the unknown name of an experiment: training code goes on with that answer.
        """
        if call.method != "GET" or not call.path.startswith(API + "/"):
            return None
        rest = call.path[len(API) + 1 :].partition("?")[0]
        if rest in {"runs/get", "metrics/get-history"}:
            return self._of_run(rest, call.body, waiting_only)
        if rest.startswith("logged-models/") and rest.count("/") == 1:
            name = rest.partition("/")[2]
            history = self._history("logged-model", name, waiting_only)
            model = logged_model_of(history) or logged_model_of(*self._since("logged-model", name, history))
            return {"model": self._named(model)} if model else None
        if rest == "registered-models/get" and not waiting_only:
            return self._registered(str(call.body.get("name")))
        if rest == "registered-models/alias":
            return self._under_alias(call.body)
        if rest == "model-versions/get":
            return self._version(call.body)
        if rest == "model-versions/get-download-uri":  # The files of what the version is made of are known here too.
            waiting = self._version(call.body)
            return {"artifact_uri": waiting["model_version"].get("source", "")} if waiting else None
        if rest == "experiments/get":
            return self._experiment(str(call.body.get("experiment_id")), waiting_only)
        if rest == "experiments/get-by-name" and not waiting_only:
            return self._experiment_by_name(str(call.body.get("experiment_name")))
        return None

    def created_here(self, call: Call) -> dict[str, Any] | None:
        """The answer to a read by name of what this journal has yet to create; None when it does not wait here. A server
        that is well again may be asked before it has the creation."""
        if call.path == f"{API}/registered-models/get":
            waiting = self._journal.pending(f"model:{call.body.get('name')}")
            created = any(record.kind is Kind.REGISTERED_MODEL for record in waiting)
            model = registered_of(waiting)
            return {"registered_model": model} if created and model else None
        if call.path == f"{API}/experiments/get-by-name":
            fact = self._journal.names.fact(f"experiment-name:{call.body.get('experiment_name')}")
            experiment = json.loads(fact) if fact else {}
            waits = bool(self._journal.pending(f"experiment:{experiment.get('experiment_id')}", 1))
            return {"experiment": experiment} if waits else None
        return None

    def notice(self, call: Call, body: dict[str, Any]) -> None:
        """Keep what the server shows in the answer to a read, for the time when it is away."""
        facts: dict[str, Any] = {}
        rest = call.path.removeprefix(f"{API}/")
        if rest == "runs/get" or (rest.startswith("logged-models/") and rest.count("/") == 1):
            self._shown(body)
        if call.path.startswith(f"{API}/experiments/get"):
            experiment = body.get("experiment")
            facts[f"experiment:{text_at(experiment, 'experiment_id')}"] = experiment
            facts[f"experiment-name:{text_at(experiment, 'name')}"] = experiment
        elif call.path == f"{API}/registered-models/get":
            model = body.get("registered_model")
            facts[f"registered-model:{text_at(model, 'name')}"] = model
        if any(name.endswith(":") for name in facts):
            return  # It has not MLflow's shape.
        for name, shown in facts.items():
            fact = json.dumps(shown)
            if self._journal.names.fact(name) != fact:
                self._journal.names.remember(name, fact)

    def _shown(self, body: dict[str, Any]) -> None:
        """Keep a run or a logged model of which this journal does not hold the creation."""
        noun, field = ("run", "run_id") if "run" in body else ("model", "model_id")
        name = text_at(body, noun, "info", field)
        stream = ("run:" if noun == "run" else "logged-model:") + (self._journal.names.token_of(name) or name)
        if not name or any(record.kind in CREATES for record in self._journal.first(stream)):
            return
        fact = json.dumps({"seq": self._journal.last_delivered(stream), "shown": body[noun]})
        if self._journal.names.fact(f"shown:{stream}") != fact:
            self._journal.names.remember(f"shown:{stream}", fact)
            self._journal.names.keep_newest("shown:", SHOWN)

    def adopt(self, run_id: str, experiment_id: str) -> None:
        """From now on answer for a run that somebody else made: what is not known of it is left out."""
        fact = json.dumps({"seq": 0, "shown": begun_elsewhere(run_id, experiment_id)})
        self._journal.names.remember(f"shown:run:{run_id}", fact)

    def adopt_model(self, model_id: str, experiment_id: str) -> None:
        """The same for a logged model."""
        fact = json.dumps({"seq": 0, "shown": model_of_others(model_id, experiment_id)})
        self._journal.names.remember(f"shown:logged-model:{model_id}", fact)

    def logged_here(self, run_id: str, key: str) -> list[dict[str, Any]]:
        """The values of a metric that this machine has logged to a run, whoever made the run."""
        return measurements(self._history("run", run_id, waiting_only=False), key)

    def models_named(self, name: str, experiment_ids: Iterable[str]) -> list[dict[str, Any]]:
        """The logged models with a name that were made here in those experiments, the newest first."""
        names = self._journal.names
        ids = {other for each in experiment_ids for other in (each, names.token_of(each), names.name_of(each)) if other}
        found = []
        for record in self._journal.inventory.of_kind(Kind.LOGGED_MODEL):
            if record.call.body.get("name") == name and str(record.call.body.get("experiment_id")) in ids:
                model = logged_model_of(self._history("logged-model", record.token, waiting_only=False))
                found += [self._named(model)] if model else []
        return found[::-1]

    def _since(self, noun: str, name: str, history: list[Record]) -> tuple[list[Record], dict[str, Any] | None]:
        """What was logged to a run or model since the server showed it, and what it showed."""
        fact = self._journal.names.fact(f"shown:{noun}:{name}")
        if fact is None:
            return [], None
        found = json.loads(fact)
        return [record for record in history if record.seq > found["seq"]], found["shown"]

    def queued(self, record: Record) -> None:
        """Keep the experiment of a creation or a new name that waits, for those who ask for it by name."""
        if record.kind is Kind.EXPERIMENT:
            shown = experiment_of(record)
        elif record.call.path == f"{API}/experiments/update":
            shown = self._known_experiment(str(record.call.body.get("experiment_id")))
        else:
            return
        self._journal.names.remember(f"experiment-name:{shown['name']}", json.dumps(shown))

    def find_elsewhere(self, call: Call, ask: Ask) -> str | None:
        """Search the server for what other machines' journals made under the local ids in `call`.

        All real ids are kept. Returns the last of them; None when one is not there.
        """
        found = None
        for token in needed(call, self._journal.made):
            if self._journal.names.name_of(token) is None:
                found = self._find(token, ask)
                if found is None:
                    return None
        return found

    def _find(self, token: str, ask: Ask) -> str | None:
        learned = drive(finding(token), lambda call: Answer(200, ask(call)))
        self._journal.names.learn(learned)
        return learned[0][1] if learned else None

    def is_waiting_version(self, name: str, version: str) -> bool:
        """Whether `version` is a local number without a real one."""
        return self._version({"name": name, "version": version}) is not None

    def _history(self, noun: str, name: str, waiting_only: bool) -> list[Record]:
        stream = f"{noun}:{self._journal.names.token_of(name) or name}"
        if waiting_only and not self._journal.is_waiting(stream):
            return []
        return self._journal.history(stream)

    def _of_run(self, rest: str, query: dict[str, Any], waiting_only: bool) -> dict[str, Any] | None:
        history = self._history("run", str(query.get("run_id")), waiting_only)
        run = run_of(history)
        if run is None and (history or not waiting_only):
            run = run_of(*self._since("run", str(query.get("run_id")), history))
            if rest != "runs/get":
                return None  # The earlier values of the metric are not known.
        if run is None:
            return None
        if rest == "runs/get":
            return {"run": self._named(run)}
        return {"metrics": measurements(history, str(query.get("metric_key")))}

    def _named(self, entity: dict[str, Any]) -> dict[str, Any]:
        """The same with the real id and artifact root, if they are known."""
        info = entity["info"]
        for field in ("run_id", "run_uuid", "model_id"):
            if field in info:
                token = info[field]
                info[field] = self._journal.names.name_of(token) or token
                info["artifact_uri"] = self._journal.names.name_of("root:" + token) or info["artifact_uri"]
        for field in ("experiment_id", "source_run_id"):
            if field in info:
                info[field] = self._journal.names.name_of(info[field]) or info[field]
        for output in entity.get("outputs", {}).get("model_outputs", []):
            if name := self._journal.names.name_of(text_at(output, "model_id")):
                output["model_id"] = name
        return entity

    def _registered(self, name: str) -> dict[str, Any] | None:
        stream, fact = f"model:{name}", self._journal.names.fact(f"registered-model:{name}")
        # What the server showed contains what was delivered, and what others did.
        records = self._journal.pending(stream) if fact else self._journal.history(stream)
        if not fact and not any(record.kind is Kind.REGISTERED_MODEL for record in records):
            return None  # Others made it, and what they logged to it is not known.
        model = registered_of(records, json.loads(fact) if fact else None)
        return {"registered_model": model} if model else None

    def _under_alias(self, query: dict[str, Any]) -> dict[str, Any] | None:
        """The version with an alias that still waits here, when this journal has registered the version."""
        stream = f"model:{query.get('name')}"
        model = registered_of(self._journal.pending(stream)) or {}
        named = [item["version"] for item in model.get("aliases", []) if item["alias"] == query.get("alias")]
        history = self._journal.history(stream) if named else []
        for local in (str(local_version(record.key)) for record in history if record.kind is Kind.VERSION):
            real = self._journal.names.name_of(f"version:{local}") or ""
            if named[0] in (local, real):
                version = version_in(history, local, real)
                return {"model_version": version} if version else None
        return None

    def _version(self, query: dict[str, Any]) -> dict[str, Any] | None:
        number = str(query.get("version", ""))
        if not number.isdigit() or int(number) < LOCAL_VERSIONS or self._journal.names.name_of(f"version:{number}"):
            return None
        version = version_in(self._journal.history(f"model:{query.get('name')}"), number)
        return {"model_version": version} if version else None

    def _experiment(self, experiment_id: str, waiting_only: bool) -> dict[str, Any] | None:
        history = self._history("experiment", experiment_id, waiting_only)
        if waiting_only and not any(record.kind is Kind.EXPERIMENT for record in history):
            return None
        return {"experiment": self._known_experiment(experiment_id)}

    def _known_experiment(self, experiment_id: str) -> dict[str, Any]:
        history = self._history("experiment", experiment_id, waiting_only=False)
        for place, record in enumerate(history):
            if record.kind is Kind.EXPERIMENT:
                return experiment_of(record, history[place:])
        fact = self._journal.names.fact(f"experiment:{experiment_id}")
        # An operator's setting may name the id. The answer is that it exists, since training must not stop here.
        unknown = {"experiment_id": experiment_id, "name": experiment_id, "lifecycle_stage": "active"}
        return self._renewed(json.loads(fact) if fact else unknown)

    def _renewed(self, shown: dict[str, Any]) -> dict[str, Any]:
        """An experiment as it was shown, after what waits here since."""
        ident = shown["experiment_id"]
        stream = f"experiment:{self._journal.names.token_of(ident) or ident}"
        # What the server showed contains what was delivered. What the journal keeps of its own creation does not.
        own = TOKEN.fullmatch(ident)
        return experiment_after(shown, self._journal.history(stream) if own else self._journal.pending(stream))

    def _experiment_by_name(self, name: str) -> dict[str, Any]:
        fact = self._journal.names.fact(f"experiment-name:{name}")
        experiment = self._renewed(json.loads(fact)) if fact is not None else {}
        if experiment.get("name") == name:  # It may have another name since.
            token = experiment["experiment_id"]
            return {"experiment": {**experiment, "experiment_id": self._journal.names.name_of(token) or token}}
        # Training code then creates the experiment, and goes on. If the server has an experiment of that name, the delivery
        # of the creation takes it.
        missing = f"no experiment {name!r} is known while MLflow is away"
        raise NotKnown(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": missing})
