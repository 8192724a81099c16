"""Gates, promotion, rollback, and the copies in MLflow. Shared repositories are read; a test changes only its copy."""

import io
import json
import os
import re
import shutil
import sqlite3
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo

import _served
from barcast import cli
from barcast.cache.specs import write_specs
from barcast.comparison.resampling import BootstrapConfig
from barcast.config import validate
from barcast.data.bars import load_bars
from barcast.errors import ConfigError, DataError
from barcast.files import read_json, write_json
from barcast.params import PromoteConfig, load_params
from barcast.paths import Paths
from barcast.serving import gates
from barcast.serving.bundle import folder_hash
from barcast.serving.candidate import Candidate, best_model
from barcast.serving.gates import Interval
from barcast.serving.mlflow_registry import CHAMPION, HASH_TAG, PREVIOUS, update
from barcast.serving.predictor import Predictor
from barcast.serving.promotion import promote, rollback
from barcast.serving.registry_folder import PromotionError, next_tag, read_champion, read_previous, track
from barcast.tracking.store import connect

CONFIG = BootstrapConfig(level=0.9, resamples=400, block_factor=2.0)
TIMES = pd.Series(pd.date_range("2020", periods=400, freq="30min", tz="UTC"))


# --- intervals -------------------------------------------------------------------------------------


def interval(difference, times=TIMES, config=CONFIG, seed=1):
    return gates.paired_interval(difference, np.zeros(len(difference)), times, config, seed)


def test_equal_losses_have_a_difference_of_zero_without_width():
    losses = np.random.default_rng(0).normal(size=400)
    assert gates.paired_interval(losses, losses, TIMES, CONFIG, 1) == Interval(0.0, 0.0, 0.0)


def test_the_interval_holds_the_mean_is_seeded_and_narrows_with_more_windows():
    noise = np.random.default_rng(0).normal(0.1, 1.0, 4000)
    times = pd.Series(pd.date_range("2020", periods=4000, freq="30min", tz="UTC"))
    short, long = interval(noise[:400]), interval(noise, times)
    assert short == interval(noise[:400])
    assert short.low < short.mean < short.high
    assert long.high - long.low < 0.5 * (short.high - short.low)
    wider = interval(noise[:400], config=CONFIG.model_copy(update={"level": 0.99}))
    assert wider.high - wider.low > short.high - short.low


def test_independent_windows_give_the_usual_interval():
    noise = np.random.default_rng(3).normal(0.0, 1.0, 4000)
    times = pd.Series(pd.date_range("2020", periods=4000, freq="30min", tz="UTC"))
    found = interval(noise, times)
    assert found.high - found.low == pytest.approx(2 * 1.645 * noise.std() / np.sqrt(4000), rel=0.15)


def test_dependent_windows_and_symbols_that_move_together_widen_it():
    rng = np.random.default_rng(5)
    shocks = rng.normal(size=4000)
    slow = np.convolve(shocks, np.ones(40) / 40, "full")[:4000]
    times = pd.Series(pd.date_range("2020", periods=4000, freq="30min", tz="UTC"))
    kept, shuffled = interval(slow, times), interval(rng.permutation(slow), times)
    assert kept.high - kept.low > 3 * (shuffled.high - shuffled.low)
    twice = interval(np.concatenate([shocks, shocks]), pd.concat([times, times], ignore_index=True))
    assert twice == interval(shocks, times)


def test_losses_are_those_of_the_true_class():
    frame = pd.DataFrame({"p_down": [0.7, 0.2], "p_flat": [0.1, 0.5], "p_up": [0.2, 0.3], "label": [-1, 1]})
    assert gates.losses(frame).tolist() == pytest.approx([-np.log(0.7), -np.log(0.3)])


# --- each gate, by what it says --------------------------------------------------------------------


def test_audit_gate(tmp_path):
    paths = Paths(tmp_path)
    assert "audit.json is missing; run `dvc repro audit`" in gates.audit_gate(paths).text
    write_json(paths.audit, {"passed": False})
    gate = gates.audit_gate(paths)
    assert (gate.passed, gate.value, gate.limit) == (False, 0.0, 1.0)
    assert "reports a leak; fix it and run `dvc repro`" in gate.text
    write_json(paths.audit, {"passed": True})
    assert gates.audit_gate(paths).passed


def test_status_gate():
    assert gates.status_gate([]).passed
    gate = gates.status_gate(["train@b-5", "spec", "train@a-5", "window"])
    assert (gate.passed, gate.value) == (False, 4.0)
    assert gate.text == "4 out of date, 0 allowed (spec, train@a-5, train@b-5 and 1 more); run `dvc repro`"


@pytest.mark.parametrize(("high", "passed"), [(-0.001, True), (0.0, False), (0.002, False)])
def test_prior_gate(high, passed):
    gate = gates.prior_gate(Interval(-0.004, -0.01, high), 0.95)
    assert gate.passed is passed
    assert "log-loss minus the class frequencies' −0.0040 [−0.0100, " in gate.text
    assert passed or gate.text.endswith(f"the upper bound must be below 0, it is {high:.4f} above")


def test_calibration_gate():
    assert gates.calibration_gate(0.05, 0.05).passed
    gate = gates.calibration_gate(0.0623, 0.05)
    assert not gate.passed
    assert gate.text == (
        "calibration error 0.0623 on validation, allowed: 0.05 (promote.max_ece); it is 0.0123 too high"
    )


def test_champion_gate():
    assert gates.champion_gate(None, -1, 0.95).text == "there is no champion yet"
    assert gates.champion_gate(Interval(0.01, -0.001, 0.02), 9, 0.95).passed
    worse = gates.champion_gate(Interval(0.01, 0.004, 0.02), 1234, 0.95)
    assert not worse.passed
    assert "log-loss minus the champion's +0.0100 [+0.0040, +0.0200] on 1,234 validation windows at 95%" in worse.text
    assert worse.text.endswith("the lower bound must not be above 0, it is 0.0040 above")
    unknown = gates.champion_gate(None, 0, 0.95)
    assert not unknown.passed
    assert "no validation window is later than the champion's training" in unknown.text


def predictions(up, symbol="AAA"):
    rest = (1 - np.asarray(up)) / 2
    frame = {"datetime": TIMES[: len(up)], "symbol": symbol, "p_down": rest, "p_flat": rest, "p_up": up, "label": 1}
    return pd.DataFrame(frame)


def test_the_champion_is_compared_on_windows_that_its_training_did_not_see():
    own = predictions(np.full(300, 0.5))
    champion = predictions(np.where(np.arange(300) < 100, 0.99, 0.4)).drop(columns="label")
    until = TIMES[99]
    found, rows = gates.against_champion(own, champion, until, CONFIG, 1)
    assert rows == 200
    assert found.mean == pytest.approx(np.log(0.4) - np.log(0.5))
    shuffled = champion.sample(frac=1.0, random_state=1)
    assert gates.against_champion(own, shuffled, until, CONFIG, 1) == (found, rows)
    others = champion.assign(symbol="BBB")
    assert gates.against_champion(own, others, until, CONFIG, 1) == (None, 0)
    assert gates.against_champion(own, champion, TIMES[299], CONFIG, 1) == (None, 0)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"params.yaml: promote.max_ece = 2.0: expected less than or equal to 1"):
        validate(PromoteConfig, {"max_ece": 2.0, "max_request_rows": 1}, "params.yaml", "promote")


# --- repositories -----------------------------------------------------------------------------------

AWAY = "http://127.0.0.1:9"  # a store that can't be reached


def barcast(paths, *arguments, store=None, status=False):
    """Run one command in a repository; its exit code, standard output and standard error.

    By default with its own MLflow store, and with every stage up to date; `status` asks DVC.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(paths.root)
        patch.setattr("sys.argv", ["barcast", *map(str, arguments)])
        if store:
            patch.setenv("MLFLOW_TRACKING_URI", store)
        if not status:
            patch.setattr("barcast.serving.candidate._out_of_date", lambda paths: [])
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


def copy(paths, folder, store=None):
    """A copy of a repository with its MLflow store, or with another one."""
    root = folder / "repository"
    shutil.copytree(paths.root, root, symlinks=True, ignore=shutil.ignore_patterns("mlflow") if store else None)
    if store:
        shutil.copytree(store, root / "experiments/mlflow")
    if (root / "experiments/mlflow").is_dir():
        with sqlite3.connect(root / "experiments/mlflow/mlflow.db") as database:
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                database.execute(
                    f"UPDATE {table} SET {column} = replace({column}, '{(store or paths.store).parents[1]}', '{root}')"
                )
    return Paths(root)


def versions(paths):
    """Which version each alias names."""
    with connect(paths).calls() as client:
        models = client.search_registered_models("name = 'barcast-h5'")
    return [str(version) if version else None for m in models for version in map(m.aliases.get, (CHAMPION, PREVIOUS))]


def set_alias(paths, alias, version):
    with connect(paths).calls() as client:
        client.set_registered_model_alias("barcast-h5", alias, version)


def metadata(paths):
    return read_json(paths.registry(5) / "metadata.json")


def dvc_status(paths):
    with Repo(str(paths.root)) as repo:
        return repo.status()


@dataclass
class Promoted:
    """A repository with a champion, to be read or copied, and what the commands printed."""

    paths: Paths
    printed: tuple[int, str, str]
    refused: tuple[int, str, str] | None = None


@pytest.fixture(scope="module", autouse=True)
def own_store():
    """MLflow puts the store of an earlier file's test into the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An MLflow store without runs: making one takes a second."""
    paths = Paths(tmp_path_factory.mktemp("empty"))
    connect(paths)
    return paths.store


@pytest.fixture(scope="module")
def promoted(trained, empty_store, tmp_path_factory):
    """The best cell is champion, in Git, and version 1 in MLflow."""
    paths = copy(trained, tmp_path_factory.mktemp("promoted"), empty_store)
    printed = barcast(paths, "promote", "--horizon", "5", status=True)
    _served.commit(paths.root, "promoted")
    return Promoted(paths, printed)


@pytest.fixture(scope="module")
def replaced(promoted, tmp_path_factory):
    """GRU, which is worse, is champion by force and version 2; the best cell is previous."""
    paths = copy(promoted.paths, tmp_path_factory.mktemp("replaced"))
    refused = barcast(paths, "promote", "--horizon", "5", "--model", "gru")
    assert metadata(paths) == metadata(promoted.paths)
    assert versions(paths) == ["1", None]
    printed = barcast(paths, "promote", "--horizon", "5", "--model", "gru", "--force")
    _served.commit(paths.root, "replaced")
    return Promoted(paths, printed, refused)


# --- which cell ------------------------------------------------------------------------------------


def test_the_best_cell_is_the_one_with_the_lowest_validation_log_loss(trained):
    params = load_params(trained.params)
    scores = {m: read_json(trained.cell_metrics(f"{m}_h5"))["val"]["log_loss"] for m in _served.MODELS}
    assert best_model(trained, params, 5) == min(scores, key=scores.get)  # no cell has folds


def test_where_every_cell_has_folds_the_best_one_ranks_first_with_them(trained, tmp_path):
    params, paths = load_params(trained.params), Paths(tmp_path)
    last = "prior"  # by validation it is far from the best
    for model in _served.MODELS:
        metrics = read_json(trained.cell_metrics(f"{model}_h5"))
        folds = {"log_loss": 0.5 if model == last else 1.0, "windows": 10**6, "by_fold": []}
        paths.cell_metrics(f"{model}_h5").parent.mkdir(parents=True)
        write_json(paths.cell_metrics(f"{model}_h5"), {**metrics, "folds": folds})
    assert best_model(paths, params, 5) == last
    file = paths.cell_metrics("gru_h5")
    write_json(file, {**read_json(file), "folds": None})
    assert best_model(paths, params, 5) == best_model(trained, params, 5) != last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--horizon", "7"], "params.yaml: horizon 7 is not in the matrix; horizons: 5"),
        (["--horizon", "5", "--model", "lstn"], "lstn_h5 is not in the matrix; models: prior, logistic, xgboost,"),
    ],
)
def test_a_cell_outside_the_matrix_is_refused(trained, arguments, message):
    code, out, err = barcast(trained, "promote", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_splits_made_elsewhere_cannot_be_served(trained, monkeypatch):
    params = load_params(trained.params)
    theirs = params.model_copy(update={"data": params.data.model_copy(update={"source": "splits"})})
    monkeypatch.setattr("barcast.serving.promotion.load_params", lambda path: theirs)
    with pytest.raises(ConfigError, match=r"data.source = 'splits': a served model computes its features from raw"):
        promote(trained, 5, None, False, print)


def test_a_cell_that_is_not_trained_or_not_evaluated_is_refused(trained, tmp_path):
    paths, params = Paths(tmp_path), load_params(trained.params)
    shutil.copytree(trained.root / "experiments", tmp_path / "experiments")
    shutil.rmtree(paths.checkpoint("logistic_h5"))
    with pytest.raises(DataError, match=r"logistic_h5: no trained model; run `dvc repro evaluate@logistic-5` first"):
        Candidate(paths, params, "logistic", 5)
    paths.cell_metrics("xgboost_h5").unlink()
    with pytest.raises(DataError, match=r"metrics.json: no such file; run `dvc repro evaluate@xgboost-5` first"):
        best_model(paths, params, 5)
    paths.predictions("prior_h5", "val").unlink()
    with pytest.raises(DataError, match=r"val_predictions.parquet: no such file; run `dvc repro evaluate@prior-5`"):
        gates.read_predictions(paths, "prior", 5, "val")


# --- promoting -------------------------------------------------------------------------------------


def test_the_prior_does_not_beat_itself_and_every_failed_gate_is_named(trained, tmp_path):
    paths = copy(trained, tmp_path)
    write_json(paths.audit, {"passed": False})
    code, out, err = barcast(paths, "promote", "--horizon", "5", "--model", "prior", store=AWAY, status=True)
    assert code == 1
    assert [line[:4] for line in out.splitlines()[:5]] == ["FAIL", "FAIL", "FAIL", "ok  ", "ok  "]
    assert "error: prior_h5 is not promoted, 3 of 5 gates failed: audit: " in err
    assert "status: " in err
    assert "out of date, 0 allowed" in err
    assert "prior: log-loss minus the class frequencies' +0.0000 [+0.0000, +0.0000] on validation at 95%" in err
    assert "the upper bound must be below 0, it is 0.0000 above" in err
    assert not paths.registry(5).exists()


def test_the_best_cell_becomes_champion(promoted):
    code, out, err = promoted.printed
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line[:4] for line in lines[:5]] == ["ok  "] * 5
    assert lines[5].startswith("for the record, on test: ")
    best = best_model(promoted.paths, load_params(promoted.paths.params), 5)
    assert lines[6] == f"barcast-h5 version 1 is champion: {best}_h5"
    assert f"git tag -a -m {best}_h5 barcast-h5@v1.0.0 && dvc push" in lines[7]
    assert versions(promoted.paths) == ["1", None]
    assert dvc_status(promoted.paths) == {}
    tracked = _served.git(promoted.paths.root, "ls-files", "experiments/registry").split()
    assert [file.removeprefix("experiments/registry/h5/") for file in tracked] == [
        ".gitignore",
        "metadata.json",
        "model.dvc",
    ]


def test_the_metadata_record_where_it_came_from(promoted):
    paths, recorded = promoted.paths, metadata(promoted.paths)
    best = best_model(paths, load_params(paths.params), 5)
    assert recorded["cell"] == f"{best}_h5"
    assert recorded["git"] == {"revision": _served.git(paths.root, "rev-parse", "HEAD~").strip(), "clean": True}
    assert recorded["model_sha256"] == folder_hash(paths.registry(5) / "model")
    assert recorded["metrics"]["val"] == read_json(paths.cell_metrics(recorded["cell"]))["val"]
    assert recorded["spec"]["config"]["model_name"] == best
    assert len(recorded["features"]) == 107
    assert recorded["data"]["path"] == "data/raw/bars.parquet"
    assert len(recorded["data"]["md5"]) == 32
    assert len(recorded["lock_sha256"]) == 64
    assert recorded["bars"] == {"needed": 212, "exact": 1512, "seconds": 1800.0, "symbols": ["AAA", "BBB"]}
    assert [gate["name"] for gate in recorded["gates"]] == ["audit", "status", "prior", "calibration", "champion"]
    assert all(gate["passed"] for gate in recorded["gates"])
    assert recorded["forced"] == []
    assert str(paths.root) not in json.dumps(recorded)


def test_the_same_cell_again_changes_nothing_and_completes_what_is_missing(promoted, tmp_path):
    paths = copy(promoted.paths, tmp_path)
    before = folder_hash(paths.registry(5))
    (paths.registry(5) / "model.dvc").unlink()  # as if it had been interrupted before `dvc add`
    set_alias(paths, PREVIOUS, "1")  # as on another branch
    code, out, _ = barcast(paths, "promote", "--horizon", "5")
    assert code == 0
    assert out.splitlines()[-1].endswith("is the champion already: barcast-h5 version 1; nothing was changed")
    assert folder_hash(paths.registry(5)) == before
    assert versions(paths) == ["1", None]


def test_where_dvc_refuses_the_model_it_says_what_to_do(promoted, tmp_path, monkeypatch):
    paths = Paths(tmp_path)
    shutil.copytree(promoted.paths.registry(5), paths.registry(5))
    (paths.registry(5) / "model.dvc").unlink()
    with pytest.raises(PromotionError, match=r"h5/model: `dvc add` failed: .*not inside of a DVC.*; run it again"):
        track(paths, 5)


def test_a_worse_cell_is_refused_and_can_be_forced(promoted, replaced):
    code, _, err = replaced.refused
    assert code == 1
    assert re.search(
        r"gru_h5 is not promoted, \d of 5 gates failed: .*champion: log-loss minus the champion's \+0\.", err
    )
    assert "validation windows at 95%; the lower bound must not be above 0, it is 0." in err
    code, out, _ = replaced.printed
    assert code == 0
    assert "barcast-h5 version 2 is champion: gru_h5, version 1 is previous" in out
    assert versions(replaced.paths) == ["2", "1"]
    recorded = metadata(replaced.paths)
    assert "champion" in recorded["forced"]
    assert recorded["forced"] == [gate["name"] for gate in recorded["gates"] if not gate["passed"]]
    assert read_previous(replaced.paths, 5).metadata == metadata(promoted.paths)
    assert dvc_status(replaced.paths) == {}


def test_promoting_what_was_promoted_before_finds_its_version(replaced, tmp_path):
    paths = copy(replaced.paths, tmp_path)
    best = best_model(paths, load_params(paths.params), 5)
    _, out, _ = barcast(paths, "promote", "--horizon", "5", "--model", best)
    assert f"barcast-h5 version 1 is champion: {best}_h5, version 2 is previous" in out


def test_the_stage_that_prunes_leaves_the_registry_alone(promoted, tmp_path):
    paths = copy(promoted.paths, tmp_path)
    before = folder_hash(paths.registry(5))
    write_specs(paths)
    assert folder_hash(paths.registry(5)) == before


# --- rolling back ----------------------------------------------------------------------------------


def test_without_a_champion_nothing_can_be_rolled_back(trained):
    code, _, err = barcast(trained, "rollback", "--horizon", "5", store=AWAY)
    assert code == 1
    assert "error: barcast-h5 has no previous champion to roll back to; there is one once `barcast promote" in err
    assert "git log" not in err


def test_without_a_previous_champion_git_is_named(promoted):
    code, _, err = barcast(promoted.paths, "rollback", "--horizon", "5", store=AWAY)
    assert code == 1
    assert "has no previous champion to roll back to" in err
    assert "`git log experiments/registry/h5/metadata.json` lists the commits of older ones" in err
    assert "`git checkout COMMIT experiments/registry/h5 && dvc pull experiments/registry/h5/model.dvc` restores" in err


def test_rolling_back_swaps_folder_and_aliases_and_back_again(promoted, replaced, tmp_path):
    paths = copy(replaced.paths, tmp_path)
    first, before = metadata(promoted.paths), folder_hash(paths.registry(5))
    code, out, _ = barcast(paths, "rollback", "--horizon", "5")
    assert code == 0
    assert out.splitlines() == [
        f"ok    registry: {first['cell']} is champion, gru_h5 is previous",
        f"barcast-h5 version 1 is champion again: {first['cell']}, version 2 is previous",
    ]
    assert versions(paths) == ["1", "2"]
    assert metadata(paths) == first
    assert folder_hash(paths.registry(5) / "model") == first["model_sha256"]
    assert read_previous(paths, 5).metadata == metadata(replaced.paths)
    assert dvc_status(paths) == {}
    barcast(paths, "rollback", "--horizon", "5")
    assert versions(paths) == ["2", "1"]
    assert folder_hash(paths.registry(5)) == before


@pytest.mark.parametrize(("function", "call"), [("shutil.copytree", 2), ("os.replace", 2)])
def test_a_rollback_that_is_interrupted_leaves_the_folder_as_it_was(replaced, tmp_path, monkeypatch, function, call):
    """While it copies, or between the two renames that put the new folder in place."""
    paths = copy(replaced.paths, tmp_path)
    before = folder_hash(paths.registry(5))
    original, calls = {"shutil.copytree": shutil.copytree, "os.replace": os.replace}[function], []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        rollback(paths, 5, print)
    assert folder_hash(paths.registry(5)) == before
    assert [path.name for path in paths.registries.iterdir()] == ["h5"]


def test_a_rollback_that_was_killed_between_two_renames_is_recovered(replaced, tmp_path):
    paths = copy(replaced.paths, tmp_path)
    before = folder_hash(paths.registry(5))
    paths.registry(5).rename(paths.registries / ".h5.4194305.old")  # above the highest process id
    (paths.registries / ".h5.4194305.tmp").mkdir()
    assert read_champion(paths, 5).metadata == metadata(replaced.paths)
    assert folder_hash(paths.registry(5)) == before
    assert [path.name for path in paths.registries.iterdir()] == ["h5"]


# --- models and code that are not here -------------------------------------------------------------


def test_a_model_that_is_missing_or_another_is_refused_and_dvc_restores_it(replaced, tmp_path):
    paths = copy(replaced.paths, tmp_path)
    model, previous = paths.registry(5) / "model", paths.registry(5) / "previous/model"
    (model / "model.json").write_text("{}")
    (previous / "model.json").write_text("{}")
    code, _, err = barcast(paths, "promote", "--horizon", "5", "--force", store=AWAY)
    assert code == 1
    assert "not the model of gru_h5 in metadata.json; run `git checkout experiments/registry/h5` and `dvc check" in err
    shutil.rmtree(model)
    code, _, err = barcast(paths, "promote", "--horizon", "5", "--force", store=AWAY)
    assert code == 1
    assert "the model of gru_h5 is missing; run `dvc checkout experiments/registry/h5/model.dvc`, or `dvc pull`" in err
    code, _, err = barcast(paths, "rollback", "--horizon", "5", store=AWAY)
    assert code == 1
    assert "and `dvc checkout -f experiments/registry/h5/previous/model.dvc`" in err
    _served.dvc(paths.root, "checkout", "-q", "-f", "experiments/registry/h5/previous/model.dvc")
    code, _, err = barcast(paths, "rollback", "--horizon", "5", store=AWAY)
    assert code == 0, err  # what is rolled back from need not be here
    assert read_previous(paths, 5).metadata == metadata(replaced.paths)


def test_a_champion_of_other_code_predicts_with_the_code_that_it_was_promoted_with(promoted, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling would take longer than predicting
    champion, bars = read_champion(promoted.paths, 5), load_bars(promoted.paths.root / "data/raw/bars.parquet", ["AAA"])
    monkeypatch.setattr(champion, "package", lambda: nullcontext(promoted.paths.root / "src/barcast"))
    expected = Predictor(champion.model).predict(bars.tail(240))
    pd.testing.assert_frame_equal(champion.predict(bars.tail(240)), expected, check_exact=True)


@pytest.mark.parametrize("revision", ["0" * 40, None])
def test_a_champion_whose_code_is_nowhere_is_refused(promoted, tmp_path, monkeypatch, revision):
    paths = Paths(tmp_path)
    shutil.copytree(promoted.paths.registry(5), paths.registry(5))
    file = paths.registry(5) / "metadata.json"
    write_json(file, read_json(file) | {"git": {"revision": revision, "clean": True}})
    monkeypatch.setattr("barcast.serving.registry_folder.is_own_code", lambda config: False)
    message = r"was promoted with other code than this, which is in none of the commits .* here; fetch the commit"
    with pytest.raises(PromotionError, match=message), read_champion(paths, 5).package():
        pass


def test_code_that_fails_on_the_bars_is_reported(promoted, tmp_path, monkeypatch):
    champion = read_champion(promoted.paths, 5)
    (tmp_path / "barcast").mkdir()
    (tmp_path / "barcast/__init__.py").touch()  # it has no command
    monkeypatch.setattr(champion, "package", lambda: nullcontext(tmp_path / "barcast"))
    with pytest.raises(PromotionError, match=r"champion .*_h5: it failed on today's bars: .*No module named"):
        champion.predict(pd.DataFrame({"close": [1.0]}))


def test_predict_refuses_a_bundle_of_other_code(promoted, monkeypatch, tmp_path):
    monkeypatch.setattr("barcast.serving.bundle.is_own_code", lambda config: False)
    bars = promoted.paths.root / "data/raw/bars.parquet"
    code, _, err = barcast(promoted.paths, "predict", bars, "--out", tmp_path / "x.csv")
    assert code == 1
    assert "promoted with other code for features, windows or" in err


# --- what others get from Git and DVC --------------------------------------------------------------


def test_whoever_clones_and_pulls_gets_both_champions(replaced, tmp_path):
    paths, clone = copy(replaced.paths, tmp_path / "ours"), Paths(tmp_path / "clone")
    models = [f"experiments/registry/h5/{name}model.dvc" for name in ("", "previous/")]
    remote = f"[core]\n    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n"
    (paths.root / ".dvc/config").write_text(remote)
    _served.commit(paths.root, "remote")
    assert "experiments/registry/h5/model/" not in _served.git(paths.root, "ls-files")
    _served.git(paths.root, "tag", "-a", "-m", "champion", "barcast-h5@v1.0.0")
    _served.dvc(paths.root, "push", "-q", *models)
    _served.dvc(tmp_path, "artifacts", "get", str(paths.root), "barcast-h5", "-o", "model")
    bars = load_bars(paths.root / "data/raw/bars.parquet", ["AAA"]).tail(212)
    here, there = (Predictor(folder).predict(bars) for folder in (paths.registry(5) / "model", tmp_path / "model"))
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    file, out = paths.root / "data/raw/bars.parquet", tmp_path / "x.csv"
    assert barcast(paths, "predict", file, "--out", out, "--bundle", tmp_path / "model")[0] == 0
    _served.git(tmp_path, "clone", "-q", str(paths.root), str(clone.root))
    _served.dvc(clone.root, "pull", "-q", *models)
    assert folder_hash(clone.registry(5)) == folder_hash(paths.registry(5))
    assert barcast(clone, "rollback", "--horizon", "5", store=AWAY)[0] == 0
    assert read_champion(clone, 5).metadata == read_previous(paths, 5).metadata


def test_the_next_tag_is_above_those_that_git_has(tmp_path):
    _served.git(tmp_path, "init", "-q")
    assert next_tag(Paths(tmp_path), 5) == "barcast-h5@v1.0.0"
    _served.git(tmp_path, "commit", "-q", "--allow-empty", "-m", "start")
    for tag in ("barcast-h5@v2.0.0", "barcast-h5@v10.1.0", "barcast-h50@v30.0.0", "v7"):
        _served.git(tmp_path, "tag", tag)
    assert next_tag(Paths(tmp_path), 5) == "barcast-h5@v11.0.0"


# --- copies in MLflow ------------------------------------------------------------------------------


def test_a_store_that_is_gone_costs_a_warning_and_sync_copies_later(trained, empty_store, tmp_path):
    paths = copy(trained, tmp_path, empty_store)
    code, out, err = barcast(paths, "promote", "--horizon", "5", "--model", "xgboost", store=AWAY)
    assert code == 0
    assert "barcast-h5 (not in MLflow yet) is champion: xgboost_h5\n" in out
    assert re.fullmatch(r"warning: MLflow store http://127.0.0.1:9: .*; .* no copy .* run `barcast sync` later\n", err)
    assert read_champion(paths, 5).cell == "xgboost_h5"
    for model in set(_served.MODELS) - {"xgboost"}:
        shutil.rmtree(paths.run(f"{model}_h5"))
    for _ in range(2):
        code, out, _ = barcast(paths, "sync")
        assert code == 0
        assert "barcast-h5: champion is version 1\n" in out
        assert versions(paths) == ["1", None]


def test_a_store_that_knows_nothing_gets_both_with_the_code_that_they_were_promoted_with(
    replaced, empty_store, tmp_path, monkeypatch
):
    """As in a clone, where runs are made from the bundles and the sources may have changed since."""
    paths = copy(replaced.paths, tmp_path, empty_store)
    shutil.rmtree(paths.runs)
    file = paths.registry(5) / "previous/metadata.json"
    write_json(file, read_json(file) | {"git": {"revision": None, "clean": False}})  # committed with its champion
    previous = read_previous(paths, 5)
    monkeypatch.setattr("barcast.serving.registry_folder.is_own_code", lambda config: config.model == "gru")
    assert update(paths, 5) == {"previous": "1", "champion": "2"}
    assert versions(paths) == ["2", "1"]
    with connect(paths).calls() as client:
        version = client.get_model_version("barcast-h5", "1")
        files = client.download_artifacts(version.run_id, version.source.split("/", 2)[2], str(tmp_path))
        assert client.get_run(version.run_id).data.tags["restored"] == "true"
    assert version.tags == {HASH_TAG: previous.model_hash, "cell": previous.cell, "forced": ""}
    theirs = (tmp_path / files / "code/barcast/serving/predictor.py").read_bytes()
    assert theirs == _served.git(paths.root, "show", "HEAD:src/barcast/serving/predictor.py").encode()


def test_the_aliases_follow_the_folder(replaced, tmp_path):
    """Whatever happened while another store was used, or on another branch."""
    paths = copy(replaced.paths, tmp_path)
    assert barcast(paths, "rollback", "--horizon", "5", store=AWAY)[0] == 0
    assert versions(paths) == ["2", "1"]
    assert update(paths, 5) == {"champion": "1", "previous": "2"}
    assert versions(paths) == ["1", "2"]
    shutil.rmtree(paths.registry(5) / "previous")
    assert update(paths, 5) == {"champion": "1"}
    assert versions(paths) == ["1", None]


def test_a_champion_that_cannot_be_copied_costs_a_warning(replaced, tmp_path, capsys):
    paths = copy(replaced.paths, tmp_path)
    file = paths.registry(5) / "previous/metadata.json"
    write_json(file, read_json(file) | {"model_sha256": "0" * 64})
    set_alias(paths, CHAMPION, "1")
    assert update(paths, 5) == {"champion": "2"}
    assert versions(paths) == ["2", "1"]
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ")
    assert "not the model of " in warning
    assert warning.endswith("; in MLflow barcast-h5@previous stays as it is\n")
