"""Uses of MLflow as people write them, each in an experiment of its own: PREFIX and its name. Prints each one's outcome.

They are the functions of the modules beside this one whose names begin with `use_`, and `in_run_` for those that find a run
open. USES: their names, with commas.
"""

import importlib
import json
import os
from contextlib import nullcontext
from importlib.util import find_spec

import mlflow

#: Modules of uses, and the library that each needs beside MLflow's own.
KINDS = {"runs": "mlflow", "files": "mlflow", "models": "sklearn", "libraries": "xgboost", "torch": "torch"}

modules = [importlib.import_module(f"uses_of_{kind}") for kind, library in KINDS.items() if find_spec(library)]
uses = {
    name.removeprefix("use_").removeprefix("in_run_").replace("_", "-"): function
    for module in modules
    for name, function in vars(module).items()
    if name.startswith(("use_", "in_run_"))
}


def main() -> None:
    outcomes: dict[str, str] = {}
    for chosen in os.environ["USES"].split(","):
        experiment = f"{os.environ['PREFIX']}-{chosen}"
        try:
            mlflow.set_experiment(experiment)
            open_run = uses[chosen].__name__.startswith("in_run_")
            with mlflow.start_run(run_name="run") if open_run else nullcontext():
                uses[chosen](experiment)
            outcomes[chosen] = "ok"
        except Exception as error:
            outcomes[chosen] = f"{type(error).__name__}: {error}"[:500]
        finally:
            while mlflow.active_run() is not None:
                mlflow.end_run()
            mlflow.sklearn.autolog(disable=True)
    print(json.dumps(outcomes))


if __name__ == "__main__":  # A worker of `spawn` imports it.
    main()
