# `make repro` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(BIN):$(PATH)

.PHONY: env repro test lint ui bench picture data lock clean

env: $(STAMP)  ## the environment alone

repro: $(STAMP)  ## run the pipeline, then show the leaderboard and say where the report is
	dvc repro
	barcast sync
	barcast leaderboard

test: $(STAMP)  ## the whole test suite
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## style, and types of the public API
	ruff check .
	ruff format --check .
	mypy

ui: $(STAMP)  ## MLflow's pages on the local store
	@echo "runs: http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///experiments/mlflow/mlflow.db}"

bench: $(STAMP)  ## figures of speed and memory against peers; takes a while
	python -m benchmarks

picture: $(STAMP)  ## take README's picture of the report again; needs a Chromium
	python .ci/picture.py experiments/report/index.html docs/leaderboard.png

data: $(STAMP)  ## rebuild the embedded bars from their source and prove them equal
	python -m barcast.data.embedded

lock:  ## resolve the newest allowed libraries into requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0
	build/lock/bin/python -m pip install --quiet ".[dev]"
	build/lock/bin/python -m pip install --quiet --no-deps "aeon>=1.6"  # for its data sets; what it asks for is older
	(head -1 requirements.lock; build/lock/bin/python -m pip freeze --exclude barcast --exclude setuptools \
	  | sed 's/+cpu$$//') > build/requirements.lock
	mv build/requirements.lock requirements.lock && rm -rf build/lock

clean:  ## drop what a run made here; DVC's cache and the tracker stay
	rm -rf data/splits data/windows experiments/runs experiments/report experiments/specs experiments/ensembles
	rm -rf experiments/oof/*/ experiments/tune/*/

$(STAMP): requirements.lock pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)
