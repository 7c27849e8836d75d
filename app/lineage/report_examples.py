"""One example of each metadata body and answer, for the OpenAPI document."""

from typing import Any

_RUN = "spool-5f0c1b6f0d6b4a6c9a3e2f1d0c9b8a76"

REPORT: dict[str, Any] = {
    "component": "training",
    "state": "succeeded",
    "who": "airflow",
    "trigger_id": "0198c2f0-5b7f-7d02-8c44-aa0f51c09b7e",
    "experiment": "churn",
    "at": "2026-11-23T03:20:00Z",
    "params": {"max_depth": 6, "learning_rate": 0.1},
    "metrics": {"f1": 0.83, "auc": 0.91, "rmse": 0.24},
    "artifacts": {"model": "s3://models/churn/2026-11-23/model.pkl"},
    "datasets": [{"name": "churn", "uri": "s3://features/churn", "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015"}],
    "git_commit": "d6cd1e2bd19e03a81132a23b2025920577f84e37",
}

TAKEN: dict[str, Any] = {"id": "0198c301-77aa-7b10-9e55-1c2d3e4f5a6b", "run": _RUN, "records": 8}

HAND_OVER: dict[str, Any] = {
    "records": [
        {
            "schema": 1,
            "key": "5f0c1b6f0d6b4a6c9a3e2f1d0c9b8a76",
            "seq": 1,
            "stream": f"run:{_RUN}",
            "kind": "create run",
            "method": "POST",
            "path": "/api/2.0/mlflow/runs/create",
            "body": {
                "experiment_id": "1",
                "start_time": 1795000000000,
                "tags": [{"key": "mlflow_spool.run_key", "value": "5f0c1b6f0d6b4a6c9a3e2f1d0c9b8a76"}],
            },
            "made_at": 1795000000000,
            "attempted_at": None,
        }
    ],
    "names": {},
}

ASIDE: dict[str, Any] = {
    "key": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "stream": f"run:{_RUN}",
    "kind": "log",
    "state": "aside",
    "attempts": 0,
    "problem": "400 INVALID_PARAMETER_VALUE: Changing param values is not allowed.",
    "report": TAKEN["id"],
    "at": "2026-11-23T03:20:01Z",
}

CERTIFICATE: dict[str, Any] = {
    "run": _RUN,
    "run_id": "9d1f7c3a5b2e4f60a1c8d7e6f5b4a392",
    "records": {"pending": 0, "delivered": 8, "aside": 0},
    "complete": False,
    "spooled": 14,
    "readable": 13,
    "missing": ["artifact model/model.pkl of model m-spool-77c0c0d1e2f3445566778899aabbccdd"],
    "detail": "MLflow shows 13 of 14 reported items.",
}
