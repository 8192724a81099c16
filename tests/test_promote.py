"""Gates, the registry of champions, and the way back; the tests of the second half follow one another."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

import _served
from barcast import cli
from barcast.config import validate
from barcast.data.bars import load_bars
from barcast.errors import ConfigError, DataError
from barcast.evaluation.bootstrap import BootstrapConfig
from barcast.files import read_json, write_json
from barcast.paths import Paths
from barcast.serving import gates
from barcast.serving.bundle import folder_hash
from barcast.serving.candidate import Candidate, PromotionError, best_model
from barcast.serving.committed import next_tag, present_champion
from barcast.serving.gates import Interval, PromoteConfig
from barcast.serving.predictor import Predictor
from barcast.serving.registry import promote
from barcast.serving.versions import CHAMPION, HASH_TAG, PREVIOUS, Versions, code_in
from barcast.stages.spec import spec

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
    assert "says that something leaks; mend it and run `dvc repro`" in gate.text
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
    assert "log-loss less that of the class frequencies −0.0040 [−0.0100, " in gate.text
    assert passed or gate.text.endswith(f"the upper bound must be below 0 and is {high:.4f} above it")


def test_calibration_gate():
    assert gates.calibration_gate(0.05, 0.05).passed
    gate = gates.calibration_gate(0.0623, 0.05)
    assert not gate.passed
    assert gate.text == (
        "calibration error 0.0623 on validation, at most 0.05 allowed (promote.max_ece): 0.0123 too much"
    )


def test_champion_gate():
    assert gates.champion_gate(None, -1, 0.95).text == "there is no champion yet"
    assert gates.champion_gate(Interval(0.01, -0.001, 0.02), 9, 0.95).passed
    worse = gates.champion_gate(Interval(0.01, 0.004, 0.02), 1234, 0.95)
    assert not worse.passed
    assert "log-loss less the champion's +0.0100 [+0.0040, +0.0200] on 1,234 validation windows at 95%" in worse.text
    assert worse.text.endswith("the lower bound may not be above 0 and is by 0.0040")
    unknown = gates.champion_gate(None, 0, 0.95)
    assert not unknown.passed
    assert "no validation window lies after what the champion was trained on" in unknown.text


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


# --- which cell ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(trained, tmp_path_factory):
    """A copy that the tests below change, one after the other."""
    root = tmp_path_factory.mktemp("promoted") / "repository"
    shutil.copytree(trained.root, root, symlinks=True)
    return Paths(root)


@pytest.fixture
def barcast(repository, monkeypatch, capsys):
    """Run one command in the repository; answers (exit code, standard output, standard error)."""
    monkeypatch.chdir(repository.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["barcast", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def params_of(paths, **changes):
    from barcast.params import load_params

    return load_params(paths.params).model_copy(update=changes)


def test_the_best_cell_is_the_one_with_the_lowest_validation_log_loss(trained):
    params = params_of(trained)
    scores = {m: read_json(trained.cell_metrics(f"{m}_h5"))["val"]["log_loss"] for m in _served.MODELS}
    assert best_model(trained, params, 5) == min(scores, key=scores.get)  # no cell has folds


def test_where_every_cell_has_folds_the_best_one_ranks_first_with_them(trained, tmp_path):
    params, paths = params_of(trained), Paths(tmp_path)
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
def test_a_cell_outside_the_matrix_is_refused(barcast, arguments, message):
    code, out, err = barcast("promote", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_splits_made_elsewhere_cannot_serve(repository, monkeypatch):
    params = params_of(repository)
    theirs = params.model_copy(update={"data": params.data.model_copy(update={"source": "splits"})})
    monkeypatch.setattr("barcast.serving.registry.load_params", lambda path: theirs)
    with pytest.raises(ConfigError, match=r"data.source = 'splits': a served model makes its features from raw bars"):
        promote(repository, 5, None, False, print)


def test_a_cell_that_is_not_trained_or_not_evaluated_is_refused(repository, tmp_path):
    paths = Paths(tmp_path)
    shutil.copytree(repository.root / "experiments", tmp_path / "experiments")
    shutil.rmtree(paths.checkpoint("logistic_h5"))
    with pytest.raises(DataError, match=r"logistic_h5: no trained model; run `dvc repro evaluate@logistic-5` first"):
        Candidate(paths, params_of(repository), "logistic", 5)
    paths.cell_metrics("xgboost_h5").unlink()
    with pytest.raises(DataError, match=r"metrics.json: no such file; run `dvc repro evaluate@xgboost-5` first"):
        best_model(paths, params_of(repository), 5)
    paths.predictions("prior_h5", "val").unlink()
    with pytest.raises(DataError, match=r"val_predictions.parquet: no such file; run `dvc repro evaluate@prior-5`"):
        gates.read_predictions(paths, "prior", 5, "val")


# --- promoting, in order ---------------------------------------------------------------------------


def versions(paths):
    found = Versions(paths, 5)
    return [found.aliased(alias) and str(found.aliased(alias).version) for alias in (CHAMPION, PREVIOUS)]


def registry(paths):
    return read_json(paths.registry(5) / "metadata.json")


def test_nothing_can_be_rolled_back_yet(barcast):
    code, _, err = barcast("rollback", "--horizon", "5")
    assert code == 1
    assert "error: barcast-h5 has no previous champion to roll back to; there is one once `barcast promote" in err


def test_the_prior_does_not_beat_itself_and_every_failed_gate_is_named(barcast, repository):
    write_json(repository.audit, {"passed": False})
    code, out, err = barcast("promote", "--horizon", "5", "--model", "prior")
    assert code == 1
    assert [line[:4] for line in out.splitlines()[:5]] == ["FAIL", "FAIL", "FAIL", "ok  ", "ok  "]
    assert "error: prior_h5 is not promoted, 3 of 5 gates failed: audit: " in err
    assert "status: " in err
    assert "out of date, 0 allowed" in err
    assert "prior: log-loss less that of the class frequencies +0.0000 [+0.0000, +0.0000] on validation at 95%" in err
    assert "the upper bound must be below 0 and is 0.0000 above it" in err
    assert not repository.registry(5).exists()
    shutil.rmtree(repository.root / "experiments/audit.json", ignore_errors=True)
    _served.dvc(repository.root, "checkout", "-f", "-q", "experiments/audit.json")


def test_a_store_that_is_gone_changes_nothing(barcast, repository, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, err = barcast("promote", "--horizon", "5")
    assert code == 1
    assert "error: MLflow store http://127.0.0.1:9: " in err
    assert not repository.registry(5).exists()


def test_the_best_cell_becomes_champion(barcast, repository):
    code, out, err = barcast("promote", "--horizon", "5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line[:4] for line in lines[:5]] == ["ok  "] * 5
    assert lines[5].startswith("for the record, on test: ")
    best = best_model(repository, params_of(repository), 5)
    assert lines[6] == f"barcast-h5 version 1 is champion: {best}_h5"
    assert f"git tag -a -m {best}_h5 barcast-h5@v1.0.0 && dvc push" in lines[7]
    assert versions(repository) == ["1", None]
    assert "up to date" in _served.dvc(repository.root, "status")


def test_the_metadata_say_where_it_came_from(repository):
    found = registry(repository)
    best = best_model(repository, params_of(repository), 5)
    assert found["cell"] == f"{best}_h5"
    assert found["git"] == {"revision": _served.git(repository.root, "rev-parse", "HEAD").strip(), "clean": True}
    assert found["model_sha256"] == folder_hash(repository.registry(5) / "model")
    assert found["metrics"]["val"] == read_json(repository.cell_metrics(found["cell"]))["val"]
    assert found["spec"]["config"]["model_name"] == best
    assert len(found["features"]) == 107
    assert found["data"]["path"] == "data/raw/bars.parquet"
    assert len(found["data"]["md5"]) == 32
    assert len(found["lock_sha256"]) == 64
    assert found["bars"] == {"needed": 212, "exact": 1512, "seconds": 1800.0, "symbols": ["AAA", "BBB"]}
    assert [gate["name"] for gate in found["gates"]] == ["audit", "status", "prior", "calibration", "champion"]
    assert all(gate["passed"] for gate in found["gates"])
    assert found["forced"] == []
    assert str(repository.root) not in json.dumps(found)


def test_the_same_cell_again_is_no_new_version(barcast, repository):
    before = (repository.registry(5) / "metadata.json").read_bytes()
    code, out, _ = barcast("promote", "--horizon", "5")
    assert code == 0
    assert out.splitlines()[-1].endswith("is the champion already: barcast-h5 version 1; nothing was changed")
    assert (repository.registry(5) / "metadata.json").read_bytes() == before
    shutil.rmtree(repository.registry(5) / "model")
    barcast("promote", "--horizon", "5")
    assert registry(repository)["model_sha256"] == folder_hash(repository.registry(5) / "model")
    assert versions(repository) == ["1", None]


@pytest.fixture(scope="module")
def champions():
    """The metadata of the two champions that the tests below make."""
    return {}


def test_a_worse_cell_is_refused_and_can_be_forced(barcast, repository, champions):
    first = registry(repository)
    code, _, err = barcast("promote", "--horizon", "5", "--model", "gru")
    assert code == 1
    assert re.search(
        r"gru_h5 is not promoted, \d of 5 gates failed: .*champion: log-loss less the champion's \+0\.", err
    )
    assert "validation windows at 95%; the lower bound may not be above 0 and is by 0." in err
    assert registry(repository) == first
    assert versions(repository) == ["1", None]
    code, out, _ = barcast("promote", "--horizon", "5", "--model", "gru", "--force")
    assert code == 0
    assert "barcast-h5 version 2 is champion: gru_h5, version 1 is previous" in out
    assert versions(repository) == ["2", "1"]
    second = registry(repository)
    assert "champion" in second["forced"]
    assert second["forced"] == [gate["name"] for gate in second["gates"] if not gate["passed"]]
    champions.update(first=first, second=second)


def test_rolling_back_swaps_folder_and_aliases_and_back_again(barcast, repository, champions):
    first, second = champions["first"], champions["second"]
    code, out, _ = barcast("rollback", "--horizon", "5")
    assert code == 0
    assert out == f"barcast-h5 version 1 is champion again: {first['cell']}; version 2 is previous\n"
    assert versions(repository) == ["1", "2"]
    assert registry(repository)["cell"] == first["cell"]
    assert folder_hash(repository.registry(5) / "model") == first["model_sha256"]
    assert "up to date" in _served.dvc(repository.root, "status")
    barcast("rollback", "--horizon", "5")
    assert versions(repository) == ["2", "1"]
    assert registry(repository) == second


def test_promoting_what_was_promoted_before_finds_its_version(barcast, repository):
    best = best_model(repository, params_of(repository), 5)
    _, out, _ = barcast("promote", "--horizon", "5", "--model", best)
    assert f"barcast-h5 version 1 is champion: {best}_h5, version 2 is previous" in out


def test_the_stage_that_prunes_leaves_the_registry_alone(repository):
    before = folder_hash(repository.registry(5))
    spec(repository)
    assert folder_hash(repository.registry(5)) == before


def test_a_champion_of_other_code_answers_with_the_code_that_it_came_with(barcast, repository, monkeypatch):
    monkeypatch.setattr("barcast.serving.candidate.is_own_code", lambda config: False)
    _served.dvc(repository.root, "checkout", "-f", "-q")
    code, out, err = barcast("promote", "--horizon", "5", "--model", "gru")
    assert code == 1, out
    assert "champion: log-loss less the champion's +0." in err


def test_predict_refuses_a_bundle_of_other_code(barcast, repository, monkeypatch, tmp_path):
    monkeypatch.setattr("barcast.serving.bundle.is_own_code", lambda config: False)
    code, _, err = barcast("predict", repository.root / "data/raw/bars.parquet", "--out", tmp_path / "x.csv")
    assert code == 1
    assert "promoted with other code for features, windows or" in err


def test_whoever_clones_and_pulls_gets_the_champion(barcast, repository, tmp_path):
    root = repository.root
    _served.dvc(root, "remote", "add", "-q", "-d", "shared", str(tmp_path / "remote"))
    _served.commit(root, "promoted")
    assert "experiments/registry/h5/model.dvc" in _served.git(root, "ls-files")
    assert "experiments/registry/h5/metadata.json" in _served.git(root, "ls-files")
    assert "experiments/registry/h5/model/" not in _served.git(root, "ls-files")
    _served.git(root, "tag", "-a", "-m", "champion", "barcast-h5@v1.0.0")
    _served.dvc(root, "push", "-q", "experiments/registry/h5/model.dvc")
    _served.dvc(tmp_path, "artifacts", "get", str(root), "barcast-h5", "-o", "model")
    bars = load_bars(root / "data/raw/bars.parquet", ["AAA"]).tail(212)
    here, there = (Predictor(folder).predict(bars) for folder in (repository.registry(5) / "model", tmp_path / "model"))
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    code, _, _ = barcast(
        "predict", root / "data/raw/bars.parquet", "--out", tmp_path / "x.csv", "--bundle", tmp_path / "model"
    )
    assert code == 0


# --- where MLflow knows less than Git, in order ----------------------------------------------------


@pytest.fixture(scope="module")
def clone(repository, tmp_path_factory):
    """What `git clone && dvc pull` gives: the registry folder with its champion, and no MLflow store."""
    root = tmp_path_factory.mktemp("cloned") / "repository"
    shutil.copytree(repository.root, root, symlinks=True, ignore=shutil.ignore_patterns("mlflow"))
    return Paths(root)


@pytest.fixture
def in_clone(barcast, clone, monkeypatch):
    monkeypatch.chdir(clone.root)
    return barcast


def test_without_a_store_there_is_nothing_to_roll_back_to_and_git_is_named(in_clone, clone):
    before = registry(clone)
    code, _, err = in_clone("rollback", "--horizon", "5")
    assert code == 1
    assert "has no previous champion to roll back to" in err
    assert "`git log experiments/registry/h5/metadata.json` tells the commit" in err
    assert registry(clone) == before


def test_the_committed_champion_counts_in_a_clone(in_clone, clone):
    first = registry(clone)
    code, out, err = in_clone("promote", "--horizon", "5", "--model", "gru")
    assert code == 1
    assert out.splitlines()[0] == (
        f"note  champion: experiments/registry/h5 holds {first['cell']}, which is barcast-h5 version 1; "
        "MLflow's store names none, and the folder counts"
    )
    assert "champion: log-loss less the champion's +0." in err
    assert registry(clone) == first
    assert versions(clone) == [None, None], "what was refused changes no alias"
    code, out, _ = in_clone("promote", "--horizon", "5", "--model", "gru", "--force")
    assert code == 0
    assert "barcast-h5 version 2 is champion: gru_h5, version 1 is previous" in out
    assert "git tag -a -m gru_h5 barcast-h5@v2.0.0 && dvc push" in out, "v1.0.0 was tagged in the repository"
    assert in_clone("rollback", "--horizon", "5")[0] == 0
    assert registry(clone) == first
    assert folder_hash(clone.registry(5) / "model") == first["model_sha256"]


def test_back_on_the_first_store_the_folder_is_right(in_clone, clone, monkeypatch):
    first = registry(clone)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{clone.root}/other.db")
    code, out, _ = in_clone("promote", "--horizon", "5", "--model", "prior", "--force")
    assert code == 0
    assert "which is barcast-h5 version 1; MLflow's store names none, and the folder counts" in out
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, out, _ = in_clone("rollback", "--horizon", "5")
    assert code == 0
    assert "holds prior_h5, which is barcast-h5 version 3; MLflow's store names version 1, and the folder cou" in out
    assert f"version 1 is champion again: {first['cell']}; version 3 is previous" in out
    assert registry(clone) == first
    assert versions(clone) == ["1", "3"]


def test_promoting_the_committed_champion_again_mends_the_aliases(in_clone, clone):
    first = registry(clone)
    Versions(clone, 5).point(CHAMPION, "2")  # as another branch had it
    code, out, _ = in_clone("promote", "--horizon", "5", "--model", first["model"], "--force")
    assert code == 0
    assert out.splitlines()[-1].endswith("is the champion already: barcast-h5 version 1; nothing was changed")
    assert versions(clone) == ["1", "2"]
    Versions(clone, 5).point(PREVIOUS, "3")


def test_a_rollback_that_was_cut_short_goes_on(in_clone, clone):
    first = registry(clone)
    in_clone("rollback", "--horizon", "5")
    found = Versions(clone, 5)
    found.point(CHAMPION, "1")  # as before the aliases were moved
    found.point(PREVIOUS, "3")
    code, out, _ = in_clone("rollback", "--horizon", "5")
    assert code == 0
    assert "version 3 is champion again: prior_h5; version 1 is previous" in out
    in_clone("rollback", "--horizon", "5")
    assert registry(clone) == first


class NoVersions:
    """A registered model that has no version yet, and takes none."""

    name = "barcast-h5"

    def aliased(self, alias):
        return None

    def find(self, model_hash):
        return None


@pytest.fixture
def held(clone, tmp_path):
    """The clone's registry folder, to be spoilt."""
    shutil.copytree(clone.registry(5), Paths(tmp_path).registry(5))
    return Paths(tmp_path)


def test_a_champion_that_is_not_pulled_or_another_model_is_refused(held):
    model = held.registry(5) / "model"
    (model / "model.json").write_text("{}")
    with pytest.raises(PromotionError, match=r"not the model of .* that metadata.json names; run `git checkout exp"):
        present_champion(held, NoVersions(), 5, print)
    shutil.rmtree(model)
    with pytest.raises(PromotionError, match=r"is missing; run `dvc pull experiments/registry/h5/model.dvc`"):
        present_champion(held, NoVersions(), 5, print)


def test_a_committed_champion_of_other_code_is_served_with_the_code_of_its_commit(clone, monkeypatch):
    monkeypatch.setattr("barcast.serving.committed.is_own_code", lambda config: False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{clone.root}/third.db")
    found = Versions(clone, 5)
    version = present_champion(clone, found, 5, print)
    assert version.tags[HASH_TAG] == registry(clone)["model_sha256"]
    with found.files(version) as files:
        theirs = (code_in(files) / "barcast/serving/predictor.py").read_bytes()
    at = registry(clone)["git"]["revision"]
    assert theirs == _served.git(clone.root, "show", f"{at}:src/barcast/serving/predictor.py").encode()


@pytest.mark.parametrize("revision", ["0" * 40, None])
def test_a_champion_whose_code_is_nowhere_is_refused(clone, held, monkeypatch, revision):
    monkeypatch.setattr("barcast.serving.committed.is_own_code", lambda config: False)
    file = held.registry(5) / "metadata.json"
    write_json(file, read_json(file) | {"git": {"revision": revision, "clean": True}})
    shutil.copytree(clone.root / ".git", held.root / ".git")
    with pytest.raises(PromotionError, match=r"was promoted with code that is neither this nor that of commit"):
        present_champion(held, NoVersions(), 5, print)


def test_the_next_tag_is_above_those_that_git_has(tmp_path):
    _served.git(tmp_path, "init", "-q")
    assert next_tag(Paths(tmp_path), 5) == "barcast-h5@v1.0.0"
    _served.git(tmp_path, "commit", "-q", "--allow-empty", "-m", "start")
    for tag in ("barcast-h5@v2.0.0", "barcast-h5@v10.1.0", "barcast-h50@v30.0.0", "v7"):
        _served.git(tmp_path, "tag", tag)
    assert next_tag(Paths(tmp_path), 5) == "barcast-h5@v11.0.0"
