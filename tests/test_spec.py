"""Specs: one file for each stage and cell, the same bytes every time."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import barcast
from barcast.cache import specs as cache_specs
from barcast.cache.fingerprint import Fingerprinter
from barcast.errors import ConfigError
from barcast.paths import Paths
from barcast.yaml_io import load_yaml

STAGES = {"prepare", "audit", "window", "baseline", "evaluate", "repeat", "compare"}
PRIOR, XGBOOST, LIGHTGBM, GRU = (
    {f"{model}_h{horizon}" for horizon in (5, 20)} for model in ("prior", "xgboost", "lightgbm", "gru")
)
ENSEMBLES = {"ensembles_h5", "ensembles_h20"}
SOURCE = Path(barcast.__file__).parents[1]


@pytest.fixture(scope="module")
def reader():
    """Parses each module once for all tests of this file."""
    return Fingerprinter(SOURCE)


@pytest.fixture
def write_specs(write_params, tmp_path, reader):
    def write(changes=None):
        small = {"models": ["prior", "xgboost", "lightgbm"], "evaluate.out_of_fold": "all"}
        write_params({**small, **(changes or {})})
        cache_specs.write_specs(Paths(tmp_path), reader)
        return {path.stem: path.read_bytes() for path in Paths(tmp_path).specs.iterdir()}

    return write


_committed = {}


@pytest.fixture
def committed_specs(write_specs):
    """Those of the committed file, made once for all tests: no path is in them."""
    if not _committed:
        _committed.update(write_specs())
    return _committed


def changed(before, after):
    return {name for name in before | after if before.get(name) != after.get(name)}


def oof(cells):
    return {f"oof_{cell}" for cell in cells}


def test_every_stage_and_cell_has_a_spec(write_specs):
    cells = PRIOR | XGBOOST | LIGHTGBM
    assert set(write_specs()) == STAGES | cells | oof(cells) | ENSEMBLES | {"tune_lightgbm_h5"}


def test_a_cell_spec_says_what_can_change_its_result(write_specs):
    content = yaml.safe_load(write_specs()["xgboost_h5"])
    assert list(content) == ["stage", "format", "cell", "model", "horizon", "config", "code", "libraries"]
    assert content["config"]["model_name"] == "xgboost"
    assert {"barcast.models.xgboost", "barcast.training.trainer", "barcast.data.windows"} <= set(content["code"])
    assert not [m for m in content["code"] if re.match(r"barcast\.(models\.lightgbm|evaluation|tracking|params)", m)]
    assert {"xgboost", "numpy"} <= set(content["libraries"])
    assert "packaging" not in content["libraries"]  # it compares versions, and computes nothing
    assert not {"lightgbm", "catboost", "mlflow", "torch"} & set(content["libraries"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"model.learning_rate": 0.071}, {*(both := XGBOOST | LIGHTGBM), *oof(both), "tune_lightgbm_h5"}),
        ({"model.xgboost.max_depth": 7}, XGBOOST | oof(XGBOOST)),
        ({"model.xgboost.h20": {"max_depth": 7}}, {"xgboost_h20", "oof_xgboost_h20"}),
        ({"model.xgboost.train_stride": 2}, XGBOOST | oof(XGBOOST)),
        ({"model.lookback": 7, "model.average_seeds": 9}, set()),  # of networks only
        ({"evaluate.cost_bps": 1.0}, {"baseline", "evaluate", "repeat", "compare", "tune_lightgbm_h5", *ENSEMBLES}),
        ({"evaluate.alpha": 0.2}, {"baseline", "evaluate", "repeat", *ENSEMBLES}),
        ({"tune.n_trials": 9}, {"tune_lightgbm_h5"}),
        ({"tune.folds.count": 7}, {"tune_lightgbm_h5", *oof(PRIOR | XGBOOST | LIGHTGBM)}),
        ({"tune.models": ["xgboost"]}, {"tune_lightgbm_h5", "tune_xgboost_h5"}),
        ({"tune.models": []}, {"tune_lightgbm_h5"}),
        ({"ensemble.weights": {"h5": {"xgboost": 1.0}}}, {"ensembles_h5"}),
        ({"ensemble.shrink": 0.9}, ENSEMBLES),
        ({"evaluate.out_of_fold": ["xgboost"]}, oof(PRIOR | LIGHTGBM)),
        ({"evaluate.out_of_fold": ["xgboost", "prior", "lightgbm"]}, set()),
        ({"model.lightgbm.min_child_samples": 9}, {*LIGHTGBM, *oof(LIGHTGBM), "tune_lightgbm_h5"}),
        ({"evaluate.seeds": [1, 2]}, {"compare"}),
        ({"compare.resamples": 500}, {"compare"}),
        ({"label.horizons.h5.max_bars": 6}, {"prepare", "audit", "compare"}),
        ({"window.seq_len": 30}, {"audit", "window"}),
        ({"data.audit.cuts": 2}, {"audit"}),
        ({"label.horizons.h5.k_up": 2.0}, {"prepare", "audit"}),
        ({"label.weights": "both"}, {"window"}),  # the columns of the splits are all there
        ({"data.features.units": "price"}, {"prepare", "audit"}),
        ({"models": ["prior", "xgboost"]}, {"compare", *LIGHTGBM, *oof(LIGHTGBM), *ENSEMBLES}),
        (
            {"horizons": [5]},
            {"prepare", "audit", "window", "compare", "ensembles_h20"}
            | (gone := {"prior_h20", "xgboost_h20", "lightgbm_h20"})
            | oof(gone),
        ),
    ],
)
def test_a_parameter_changes_the_specs_that_read_it_and_no_other(committed_specs, write_specs, change, expected):
    assert changed(committed_specs, write_specs(change)) == expected


@pytest.mark.parametrize("key", ["average_seeds", "lookback", "train_stride"])
def test_what_networks_share_changes_their_cells_and_no_booster_s(write_specs, key):
    matrix = {"models": ["prior", "xgboost", "gru"]}
    assert changed(write_specs(matrix), write_specs({**matrix, f"model.{key}": 2})) == GRU | oof(GRU)


def test_results_of_cells_outside_the_matrix_are_removed_and_others_kept(write_specs, tmp_path, capsys):
    runs = Paths(tmp_path).runs
    for name in ("xgboost_h5", "lstm_h5", "notes"):
        (runs / name).mkdir(parents=True)
    write_specs()
    assert {folder.name for folder in runs.iterdir()} == {"xgboost_h5", "notes"}
    assert "lstm_h5: no longer in the matrix" in capsys.readouterr().out


def test_studies_and_ensembles_that_nothing_asks_for_are_removed(write_specs, tmp_path, capsys):
    paths = Paths(tmp_path)
    parents = (paths.tune, paths.oof, paths.baselines, paths.ensembles)
    for parent in parents:
        for name in ("lightgbm_h5", "xgboost_h5", "gru_h20", "h5", "h9", "notes"):
            (parent / name).mkdir(parents=True)
    write_specs()
    left = [sorted(folder.name for folder in parent.iterdir()) for parent in parents]
    assert left == [
        ["h5", "h9", "lightgbm_h5", "notes"],
        ["h5", "h9", "lightgbm_h5", "notes", "xgboost_h5"],
        *[["gru_h20", "h5", "lightgbm_h5", "notes", "xgboost_h5"]] * 2,
    ]  # names of another form are not the pipeline's
    assert "gru_h20: no longer in the matrix" in capsys.readouterr().out


def test_a_library_that_is_not_the_pinned_one_stops_before_a_spec_promises_it(write_specs, tmp_path):
    before = write_specs()
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"numpy=={metadata.version('numpy')}\nxgboost==99.1\nno-library-of-a-result==1\n")
    with pytest.raises(
        ConfigError,
        match=r"^requirements.lock: xgboost [\d.]+ instead of ==99.1; run `pip install --no-deps -r requirements.lock`",
    ):
        write_specs()
    lock.write_text(f"xgboost=={metadata.version('xgboost')}\n")
    assert write_specs() == before


def test_a_search_space_decides_on_the_spec_of_its_study_alone(write_specs, tmp_path):
    before = write_specs()
    file = tmp_path / "config/models/lightgbm.yaml"

    def specs_with(text):
        file.write_text(text)
        cache_specs.write_specs(Paths(tmp_path))
        return {path.stem: path.read_bytes() for path in Paths(tmp_path).specs.iterdir()}

    text = file.read_text()
    assert changed(before, specs_with(f"# another comment\n{text}")) == set()
    assert changed(before, specs_with(text + "max_bins: {int: [16, 64]}\n")) == {"tune_lightgbm_h5"}
    with pytest.raises(
        ConfigError, match=r"lightgbm.yaml: max_bins = 999: expected .*\(when max_bins = 999 is tried\)"
    ):
        specs_with(text + "max_bins: {int: [16, 999]}\n")
    with pytest.raises(ConfigError, match=r"lightgbm.yaml: unknown key 'max_bin'; did you mean 'max_bins'"):
        specs_with(text + "max_bin: {int: [16, 64]}\n")
    with pytest.raises(ConfigError, match=r"lightgbm has nothing to tune; remove it from tune.models"):
        specs_with("{}\n")


def test_a_model_that_is_not_wanted_out_of_fold_has_nothing_to_do(write_specs):
    specs = write_specs({"evaluate.out_of_fold": ["catboost", "xgboost"]})
    bases = {name: yaml.safe_load(specs[name])["config"]["base"] for name in oof(PRIOR | XGBOOST | LIGHTGBM)}
    assert {name for name, base in bases.items() if base} == oof(XGBOOST)
    assert bases["oof_xgboost_h5"] == yaml.safe_load(specs["xgboost_h5"])["config"]
    assert "oof_catboost_h5" not in specs  # it is not in the matrix


@pytest.mark.parametrize(
    ("models", "members"),
    [(["prior", "xgboost", "lightgbm"], ["xgboost", "lightgbm"]), (["prior"], ["prior"]), (["xgboost"], ["xgboost"])],
)
def test_an_ensemble_is_made_of_what_has_learnt_something(write_specs, models, members):
    specs = write_specs({"models": models})
    for name in ENSEMBLES:
        assert yaml.safe_load(specs[name])["config"]["members"] == members


def test_weights_of_one_horizon_are_given_to_that_alone(write_specs):
    given = {"lightgbm": 0.4, "xgboost": 0.6}
    specs = write_specs({"ensemble.weights": {"h5": given}})
    weights = {name: yaml.safe_load(specs[name])["config"]["weights"] for name in ENSEMBLES}
    assert weights == {"ensembles_h5": given, "ensembles_h20": None}


def test_repeats_with_seeds_no_longer_asked_for_are_removed(write_specs, tmp_path, capsys):
    repeats = Paths(tmp_path).run("xgboost_h5") / "repeats"
    for seed in (1, 2):
        (repeats / f"s{seed}").mkdir(parents=True)
    write_specs({"evaluate.seeds": [2]})
    assert [folder.name for folder in repeats.iterdir()] == ["s2"]
    assert "s1: no longer in the matrix" in capsys.readouterr().out


def test_a_refused_file_leaves_the_specs_as_they_were(write_specs, tmp_path):
    before = write_specs()
    with pytest.raises(ConfigError, match="did you mean 'max_depth'"):
        write_specs({"model.max_dept": 3})
    assert {path.stem: path.read_bytes() for path in Paths(tmp_path).specs.iterdir()} == before


def test_no_absolute_path_is_in_a_spec(write_specs, tmp_path):
    for name, content in write_specs().items():
        assert str(tmp_path).encode() not in content, name
        assert str(SOURCE).encode() not in content, name


def test_every_stage_of_the_pipeline_reads_its_own_spec():
    stages = load_yaml(SOURCE.parent / "dvc.yaml")["stages"]
    for name in STAGES:
        whole = {"experiments/specs"} if name == "compare" else set()  # its page tells what made every cell
        assert {f"experiments/specs/{name}.yaml", *whole} & set(stages[name]["deps"])
    assert "experiments/specs/${item.model}_h${item.horizon}.yaml" in stages["train"]["deps"]
    for stage in ("train", "tune", "oof"):
        assert not [dep for dep in stages[stage]["deps"] if "test" in dep]
    assert "experiments/oof/${item.model}_h${item.horizon}" in stages["evaluate"]["deps"]
    assert stages["oof"]["matrix"] == stages["train"]["matrix"]
    for stage, prefix in (("tune", "tune_${item.model}"), ("oof", "oof_${item.model}"), ("ensemble", "ensembles")):
        assert f"experiments/specs/{prefix}_h${{item.horizon}}.yaml" in stages[stage]["deps"]
