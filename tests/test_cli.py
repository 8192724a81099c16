"""The command line: what it prints, and its errors."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from _cells import COMPARE, EVALUATE, register_stubs, score_prior, train_prior, train_stub, write_windows
from _report_cells import write_sources, write_specs
from barcast import cli
from barcast.config import validate
from barcast.doctor import check_repository
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.files import read_json, write_json
from barcast.paths import Paths
from barcast.stages._main import INTERRUPTED
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.evaluate import evaluate

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def barcast(tmp_path, monkeypatch, capsys):
    """Run one command in an almost empty repository; returns (exit code, standard output, standard error)."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BARCAST_DEBUG", "0")  # also puts back what `--debug` sets

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["barcast", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def compared(tmp_path, monkeypatch):
    register_stubs(monkeypatch, "stub")
    paths = Paths(tmp_path)
    write_windows(paths)
    score_prior(paths, 5)
    train_prior(paths, 5)
    train_stub(paths, "stub", 5, sharpness=1.0)
    for model in ("prior", "stub"):
        evaluate(model, 5, validate(EvaluateConfig, EVALUATE, "evaluate.yaml"), paths)
    write_specs(paths, ["prior", "stub"], [5])
    write_sources(paths)
    cells = [{"model": model, "horizon": 5} for model in ("prior", "stub")]
    compare(validate(CompareConfig, COMPARE | {"cells": cells}, "compare.yaml"), paths)


def test_models_lists_every_model_with_its_family(barcast):
    code, out, _ = barcast("models")
    assert code == 0
    for word in ("xgboost", "lightgbm", "catboost", "logistic", "prior", "gbdt", "baseline"):
        assert word in out
    assert "xgboost" not in barcast("models", "--family", "linear")[1]
    code, out, err = barcast("models", "--family", "foo")
    assert (code, out) == (1, "")
    assert "error: unknown family 'foo'; known families: attention, baseline, gbdt, linear" in err


def test_ctrl_c_is_one_line_and_exit_code_130(barcast, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("barcast.models.registry.ModelRegistry.list_models", interrupted)
    assert barcast("models") == (130, "", f"{INTERRUPTED}\n")
    monkeypatch.setattr("barcast.cli.app", interrupted)  # before or after Typer has its hands on it
    assert barcast("models") == (130, "", f"{INTERRUPTED}\n")
    monkeypatch.setenv("BARCAST_DEBUG", "1")
    code, _, err = barcast("models")
    assert code == 130
    assert "Traceback" in err
    assert err.endswith(f"\n{INTERRUPTED}\n")
    assert INTERRUPTED.startswith("interrupted; run the same command")


def test_other_exit_codes_are_passed_on(barcast, write_params, monkeypatch):
    write_params()
    monkeypatch.setattr("barcast.cli.pipeline.subprocess.run", lambda *a, **k: SimpleNamespace(returncode=130))
    assert barcast("train", "xgboost", "--horizon", "5") == (130, "", "")


def test_importance_refuses_a_cell_outside_the_matrix(barcast, write_params):
    write_params({"models": ["prior"], "horizons": [5]})
    code, _, err = barcast("importance", "gru", "--horizon", "7")
    assert (code, err) == (1, "error: params.yaml: gru_h7 is not in the matrix; models: prior; horizons: 5\n")
    code, _, err = barcast("importance", "prior", "--horizon", "5")
    assert "no trained model; run `dvc repro train@prior-5` first" in err


def test_outside_a_repository_the_error_is_one_line(barcast, tmp_path):
    (tmp_path / "dvc.yaml").unlink()
    code, out, err = barcast("leaderboard")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "no dvc.yaml here or above; run barcast inside its repository" in err
    assert err.count("\n") == 1


def test_train_refuses_a_cell_outside_the_matrix(barcast, write_params):
    write_params({"models": ["prior"], "horizons": [5]})
    code, _, err = barcast("train", "xgboost", "--horizon", "5")
    assert code == 1
    assert "xgboost_h5 is not in the matrix; models: prior; horizons: 5" in err


def test_train_runs_dvc_and_passes_its_failure_on(barcast, write_params):
    write_params()
    code, _, _ = barcast("train", "xgboost", "--horizon", "5")
    assert code != 0  # the empty dvc.yaml has no such stage


def test_leaderboard_in_three_forms(barcast, compared):
    code, out, _ = barcast("leaderboard")
    assert code == 0
    assert "stub" in out
    assert out.rstrip().endswith("experiments/report/index.html")
    board = json.loads(barcast("leaderboard", "--json")[1])
    assert {row["model"] for row in board["horizons"]["h5"]} == {"prior", "stub"}
    assert "| stub |" in barcast("leaderboard", "--md")[1]


def test_leaderboard_names_rows_that_are_newer(barcast, compared, tmp_path):
    assert barcast("leaderboard")[2] == ""
    file = Paths(tmp_path).cell_metrics("stub_h5")
    metrics = read_json(file)
    metrics["val"]["log_loss"] += 1e-9
    write_json(file, metrics)
    for form in ([], ["--md"], ["--json"]):
        _, out, err = barcast("leaderboard", *form)
        assert err == "note: 1 row is newer than this table: stub_h5; run `dvc repro`\n"
        assert "note:" not in out, "notes do not break JSON or Markdown"
    shutil.rmtree(Paths(tmp_path).run("prior_h5"))
    assert "note: 1 row" in barcast("leaderboard")[2], "a cell that was removed is not newer"


def test_leaderboard_before_any_run_names_the_remedy(barcast):
    code, _, err = barcast("leaderboard")
    assert code == 1
    assert "dvc repro" in err


def test_debug_shows_the_traceback(barcast):
    from barcast.errors import BarcastError

    with pytest.raises(BarcastError):
        barcast("--debug", "leaderboard")


def findings(root):
    return {finding.subject: finding for finding in check_repository(Paths(root))}


@pytest.fixture
def ready(tmp_path, write_params):
    """A repository with good parameters, libraries and data, but without DVC."""
    write_params({"model.threads": 1})
    shutil.copy(REPOSITORY / "requirements.lock", tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    shutil.copy(REPOSITORY / "data/raw/bars.parquet", tmp_path / "data/raw")
    return tmp_path


def test_doctor_accepts_a_good_repository(ready):
    found = findings(ready)
    assert {name for name, finding in found.items() if finding.ok} >= {"python", "params", "threads", "data"}
    assert "70,030 bars of BTC, ETH" in found["data"].text
    assert not found["lock"].ok
    assert "run `dvc repro`" in found["lock"].text


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        ({"model.max_dept": 3}, "params", "did you mean 'max_depth'"),
        ({"model.threads": 4096}, "threads", "model.threads = 4096 on"),
        ({"data.path": "data/none.parquet"}, "data", "data/none.parquet is missing; set data.path"),
        ({"symbols": ["BTC", "DOGE"]}, "data", "DOGE"),
        ({"data.source": "splits", "data.path": "data"}, "data", "data lacks train_scaled.parquet"),
    ],
)
def test_doctor_names_the_fix(ready, write_params, changes, subject, text):
    write_params({"model.threads": 1, **changes})
    finding = findings(ready)[subject]
    assert not finding.ok
    assert text in finding.text


def test_doctor_continues_when_there_are_too_few_bars(ready):
    bars = pd.read_parquet(REPOSITORY / "data/raw/bars.parquet").groupby("symbol").head(1)
    bars.to_parquet(ready / "data/raw/bars.parquet", index=False)
    found = findings(ready)
    assert not found["data"].ok
    assert found["data"].text == "BTC: 1 bars have no spacing; give at least two bars of one symbol"
    assert found["params"].ok
    assert "lock" in found


def test_doctor_names_libraries_that_differ_from_the_lock(ready):
    (ready / "requirements.lock").write_text("# pins\nnumpy==1.0\nno-such-library==2\n")
    finding = findings(ready)["libraries"]
    assert not finding.ok
    assert "numpy 2." in finding.text
    assert "no-such-library missing instead of ==2" in finding.text
    assert "run `pip install --no-deps -r requirements.lock`" in finding.text


def test_doctor_exits_with_1_while_something_is_wrong(barcast, ready):
    code, out, _ = barcast("doctor")
    assert code == 1
    assert "ok    params: 22 cells" in out
    assert "FIX   lock: " in out
