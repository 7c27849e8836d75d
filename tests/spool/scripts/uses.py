"""Uses of MLflow as people write them, each in an experiment of its own: PREFIX and its name. Prints each one's outcome.

USES: their names, with commas; empty: all.
"""

import json
import os

import mlflow
import uses_of_files
import uses_of_models
import uses_of_runs
from uses_kit import uses

assert [uses_of_runs, uses_of_files, uses_of_models]  # Each fills `uses`.
outcomes: dict[str, str] = {}
for chosen in os.environ.get("USES", "").split(",") if os.environ.get("USES") else list(uses):
    experiment = f"{os.environ['PREFIX']}-{chosen}"
    try:
        mlflow.set_experiment(experiment)
        uses[chosen](experiment)
        outcomes[chosen] = "ok"
    except Exception as error:
        outcomes[chosen] = f"{type(error).__name__}: {error}"[:500]
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.sklearn.autolog(disable=True)
print(json.dumps(outcomes))
