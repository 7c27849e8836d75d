# All work starts here. `make` alone lists the targets. You need Python 3.11 or newer, git and make, but no root and no Docker.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# One more than there are cores, because tests often wait for another server.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))' 2>/dev/null || echo 2)
# A test that met a stall of a busy machine runs once more; the summary shows what it met. More than five are red.
RERUN := --reruns 1 --reruns-delay 10 --max-suite-reruns 5 --rerun-show-tracebacks
ARGS ?=
SEED ?= 1
RUNS ?= 300

export GATEWAY_POLICY_FILE ?= examples/policy.yaml
# With it, every start of a server compiles everything from source again.
unexport PYTHONDONTWRITEBYTECODE
# Otherwise uv works on the environment that is active in the shell.
unexport VIRTUAL_ENV
unexport CONDA_PREFIX
# uv brings its own list of certificate authorities. Only the system's list knows a company's proxy.
ifndef SSL_CERT_FILE
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS := 1
endif
endif

COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --no-emit-package mlflow-spool $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup run demo test prove simulate check prose bench pictures ha-drill dist migrate lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Make .venv with exactly the pinned packages

run: setup ## Serve on 127.0.0.1:8090 with embedded PostgreSQL and Valkey
	$(BIN)/trigger-gateway serve $(ARGS)

demo: setup ## Show a real Airflow, a storm of alerts, one DAG run per model (ARGS=--keep leaves it running)
	$(BIN)/trigger-gateway demo $(ARGS)

test: check ## Check, then run every test (ARGS="-k word" for some)
	$(BIN)/pytest -n $(WORKERS) $(RERUN) $(ARGS)

prove: check ## The same tests at full size: an hour or more
	PROVE=1 $(BIN)/pytest -n $(WORKERS) $(RERUN) $(ARGS)

simulate: setup ## Live RUNS lives with faults, from SEED on; a failing seed is shown as the shortest story
	$(BIN)/python -m tests.simulation --seed $(SEED) --runs $(RUNS) $(ARGS)

check: setup prose ## Lint, formatting, types, import contracts, Dockerfile, docker-compose.yml, action.yml, prose
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 -p mlflow_spool # It runs in training code, whose Python may be older.
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet --pedantic --strict-collection action.yml .pre-commit-hooks.yaml
	@found=$$($(BIN)/compose-lint check --quiet --no-env docker-compose.yml 2>&1) || { echo "$$found"; exit 1; }

prose: setup ## Check the spelling of everything and the style of what people read
	$(BIN)/typos
	$(BIN)/python -m tools.prose

bench: setup ## Measure durable intake beside a plain FastAPI endpoint: about seven minutes (needs wrk)
	$(BIN)/python -m benchmarks.intake $(ARGS)

pictures: setup ## Draw every page as dist/pictures/*.png (needs Debian's chromium)
	$(BIN)/python -m tests.ui.pictures $(ARGS)

ha-drill: setup ## Kill the primary under load, promote the standby, undo a DELETE: four minutes (docs/operations/high-availability.md)
	PROVE=1 $(BIN)/pytest -n 0 -s tests/ha $(ARGS)

dist: setup ## Build wheels and source archives of both packages into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m build --no-isolation --outdir dist mlflow-spool

migrate: setup ## Bring the database to this version's schema
	$(BIN)/trigger-gateway migrate $(ARGS)

lock: setup ## Pin requirements again (ARGS=--upgrade for newer versions)
	$(COMPILE) pyproject.toml -o requirements/base.txt
	$(COMPILE) pyproject.toml --group dev -c requirements/base.txt -o requirements/dev.txt
	$(COMPILE) requirements/tools.in -o requirements/tools.txt
	$(COMPILE) requirements/airflow.in -o requirements/airflow.txt
	$(COMPILE) requirements/airflow2.in -o requirements/airflow2.txt
	$(COMPILE) requirements/mlflow.in -o requirements/mlflow.txt
	$(COMPILE) requirements/training.in -c requirements/mlflow.txt -o requirements/training.txt

clean: ## Remove what was built and cached; data directories stay
	rm -rf dist build $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.*' -prune -exec rm -rf {} +

$(VENV)/.installed: requirements/tools.txt requirements/dev.txt pyproject.toml $(wildcard mlflow-spool/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is not one. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) && $(UV) --version | grep -qF "uv $$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements/tools.txt)" || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . \
		--editable mlflow-spool
	@touch $@
