"""MLflow's Model Registry. A version's metadata is its run's, and MLflow serves the artifacts."""

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.kit.errors import Refused
from app.kit.mlflow.answers import Json, metrics_of, params_of, tags_of
from app.kit.mlflow.client import Mlflow
from app.promotion.model import Artifact, Input, Version

CONTEXT_TAG: Final = "mlflow.data.context"
SMALL: Final = 1 << 20  # bytes; a file up to this size is read for its digest
MANIFEST: Final = "MLmodel"  # of a model's folder: its digest stands for the whole folder
LONGEST_KEY: Final = 250  # characters of a tag's key in MLflow 3.17.2 (mlflow/utils/validation.py)
READY: Final = "LOGGED_MODEL_READY"  # not while its upload runs, nor after it failed
_UNFIT: Final = re.compile(r"[^\w.\- :/]")


class MlflowRegistry:
    """See app.promotion.model.Registry. `mlflow` returns the client of the policy in force."""

    def __init__(self, mlflow: Callable[[], Mlflow | None]) -> None:
        self._mlflow = mlflow

    def fit(self, tags: Mapping[str, str]) -> dict[str, str]:
        return {_key(key): value[:5000] for key, value in tags.items()}

    async def version(self, model: str, version: str, artifacts: tuple[str, ...] = ()) -> Version | None:
        client = self._client()
        found = await client.version(model, version)
        if found is None:
            return None
        run_id = str(found.get("run_id") or "")
        run = await client.run(run_id) if run_id else None
        own, of_run = tags_of(found), tags_of((run or {}).get("data") or {})
        missing = _missing(run_id, run)
        store = _Artifacts(client, found, None if missing else run)
        kept = {name: artifact for name in artifacts if (artifact := await store.find(name)) is not None}
        return Version(
            model,
            str(found.get("version")),
            status=str(found.get("status", "READY")),
            run=run_id,
            run_missing=missing,
            params=params_of(run or {}),
            metrics=metrics_of(run or {}),
            tags={**of_run, **own},
            own_tags=own,
            inputs=_inputs(run or {}),
            artifacts=kept,
            aliases=tuple(str(alias) for alias in found.get("aliases") or ()),
            source=str(found.get("source") or ""),
        )

    async def holder(self, model: str, alias: str) -> str | None:
        found = await self._client().holder(model, alias)
        return str(found["version"]) if found else None

    async def own_tags(self, model: str, version: str) -> Mapping[str, str] | None:
        found = await self._client().version(model, version)
        return tags_of(found) if found else None

    async def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        client = self._client()
        for key, value in tags.items():
            if value is None:
                await client.untag_version(model, version, key)
            else:
                await client.tag_version(model, version, key, value)

    async def move(self, model: str, alias: str, to: str | None, of: str | None) -> None:  # noqa: ARG002
        if to is None:
            await self._client().delete_alias(model, alias)
        else:
            await self._client().set_alias(model, alias, to)

    async def withdraw(self, model: str, alias: str, of: str) -> None:
        """Nothing to do: in MLflow only one version holds an alias, so the version has lost it already."""

    def _client(self) -> Mlflow:
        client = self._mlflow()
        if client is None:
            raise Refused("no_mlflow", "the policy in force names no MLflow")
        return client


class _Artifacts:
    """The artifacts of one version: those of its run, and its logged models (MLflow 3)."""

    def __init__(self, client: Mlflow, version: Json, run: Json | None) -> None:
        self._client = client
        self._run = run
        self._models = _model_ids(version, run)

    async def find(self, path: str) -> Artifact | None:
        """The artifact, if it exists and MLflow can read it."""
        return await self._of_run(path) or await self._of_model(path)

    async def _of_run(self, path: str) -> Artifact | None:
        if self._run is None:
            return None
        info = self._run.get("info") or {}
        run_id = str(info.get("run_id"))
        folder, _, _ = path.rpartition("/")
        for file in await self._client.artifacts(run_id, folder):
            if file.get("path") != path:
                continue
            uri = f"{info.get('artifact_uri', '')}/{path}"
            if not file.get("is_dir"):
                small = int(file.get("file_size") or 0) <= SMALL
                content = await self._client.file(run_id, path) if small else b""
                return None if content is None else Artifact(uri, _digest(content))
            content = await self._client.file(run_id, f"{path}/{MANIFEST}")
            return Artifact(uri, _digest(content or b""))
        return None

    async def _of_model(self, path: str) -> Artifact | None:
        for model_id in self._models:
            model = await self._client.logged_model(model_id)
            info: Mapping[str, Any] = (model or {}).get("info") or {}
            if info.get("name") != path or info.get("status") != READY:
                continue
            if not await self._client.model_artifacts(model_id):
                continue
            content = await self._client.model_file(model_id, MANIFEST)
            return Artifact(str(info.get("artifact_uri", "")), _digest(content or b""))
        return None


def _key(key: str) -> str:
    """A key that MLflow takes: it allows few characters, and a path only in its shortest form. A context is any text."""
    fit = _UNFIT.sub("_", key)[:LONGEST_KEY]
    return fit if posixpath.normpath(fit) == fit else fit.replace("/", "_")


def _model_ids(version: Json, run: Json | None) -> list[str]:
    ids = []
    source = str(version.get("source") or "")
    if source.startswith("models:/m-"):
        ids.append(source.removeprefix("models:/"))
    outputs = ((run or {}).get("outputs") or {}).get("model_outputs") or []
    ids += [str(output["model_id"]) for output in outputs if isinstance(output, dict) and output.get("model_id")]
    return list(dict.fromkeys(ids))


def _missing(run_id: str, run: Json | None) -> str:
    if not run_id:
        return ""
    if run is None:
        return f"run {run_id} is not there"
    deleted = (run.get("info") or {}).get("lifecycle_stage") == "deleted"
    return f"run {run_id} was deleted" if deleted else ""


def _inputs(run: Json) -> dict[str, tuple[Input, ...]]:
    """The data sets by their context, in the order of their names. A context may have several."""
    found: dict[str, tuple[Input, ...]] = {}
    for item in (run.get("inputs") or {}).get("dataset_inputs") or []:
        context = tags_of(item).get(CONTEXT_TAG, "")
        data = item.get("dataset") or {}
        if context:
            source = _address(str(data.get("source", "")))
            dataset = Input(str(data.get("name", "")), str(data.get("digest", "")), source)
            found[context] = (*found.get(context, ()), dataset)
    return {context: tuple(sorted(data, key=str)) for context, data in found.items()}


def _address(source: str) -> str:
    """The address of a data set. MLflow keeps JSON with one of these keys."""
    try:
        fields = json.loads(source)
    except ValueError:
        return source
    if not isinstance(fields, dict):
        return source
    return next((str(fields[key]) for key in ("uri", "url", "path", "delta_table_name") if fields.get(key)), "")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}" if content else ""
