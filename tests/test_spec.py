"""Specs: one file for each stage and cell, the same bytes every time."""

import re
from pathlib import Path

import pytest
import yaml

import barcast
from barcast.config import load_yaml
from barcast.errors import ConfigError
from barcast.fingerprint import Fingerprinter
from barcast.paths import Paths
from barcast.stages.spec import spec

STAGES = {"prepare", "audit", "window", "evaluate", "repeat", "compare"}
SOURCE = Path(barcast.__file__).parents[1]


@pytest.fixture(scope="module")
def reader():
    """Parses each module once for all tests of this file."""
    return Fingerprinter(SOURCE)


@pytest.fixture
def write_specs(write_params, tmp_path, reader):
    def write(changes=None):
        write_params({"models": ["prior", "xgboost", "lightgbm"], **(changes or {})})
        spec(Paths(tmp_path), reader)
        return {path.stem: path.read_bytes() for path in Paths(tmp_path).specs.iterdir()}

    return write


def changed(before, after):
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_every_stage_and_cell_has_a_spec(write_specs):
    cells = {f"{model}_h{horizon}" for model in ("prior", "xgboost", "lightgbm") for horizon in (5, 20)}
    assert set(write_specs()) == STAGES | cells


def test_a_cell_spec_says_what_can_change_its_result(write_specs):
    content = yaml.safe_load(write_specs()["xgboost_h5"])
    assert list(content) == ["cell", "model", "horizon", "config", "code", "libraries"]
    assert content["config"]["model_name"] == "xgboost"
    assert {"barcast.models.xgboost", "barcast.training.trainer", "barcast.data.windows"} <= set(content["code"])
    assert not [m for m in content["code"] if re.match(r"barcast\.(models\.lightgbm|evaluation|tracking|params)", m)]
    assert {"xgboost", "numpy"} <= set(content["libraries"])
    assert not {"lightgbm", "catboost", "mlflow", "torch"} & set(content["libraries"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"model.max_depth": 3}, {"xgboost_h5", "xgboost_h20", "lightgbm_h5", "lightgbm_h20"}),
        ({"model.xgboost.max_depth": 3}, {"xgboost_h5", "xgboost_h20"}),
        ({"model.xgboost.h20": {"max_depth": 3}}, {"xgboost_h20"}),
        ({"evaluate.cost_bps": 1.0}, {"evaluate", "repeat", "compare"}),
        ({"evaluate.alpha": 0.2}, {"evaluate", "repeat"}),
        ({"evaluate.seeds": [1, 2]}, {"compare"}),
        ({"compare.resamples": 500}, {"compare"}),
        ({"label.horizons.h5.max_bars": 6}, {"prepare", "audit", "compare"}),
        ({"window.seq_len": 30}, {"audit", "window"}),
        ({"data.audit.cuts": 2}, {"audit"}),
        ({"label.horizons.h5.k_up": 2.0}, {"prepare", "audit"}),
        ({"models": ["prior", "xgboost"]}, {"compare", "lightgbm_h5", "lightgbm_h20"}),
        ({"horizons": [5]}, {"prepare", "audit", "window", "compare", "prior_h20", "xgboost_h20", "lightgbm_h20"}),
    ],
)
def test_a_parameter_changes_the_specs_that_read_it_and_no_other(write_specs, change, expected):
    before = write_specs()
    assert changed(before, write_specs(change)) == expected


def test_results_of_cells_outside_the_matrix_are_removed_and_others_kept(write_specs, tmp_path, capsys):
    runs = Paths(tmp_path).runs
    for name in ("xgboost_h5", "lstm_h5", "notes"):
        (runs / name).mkdir(parents=True)
    write_specs()
    assert {folder.name for folder in runs.iterdir()} == {"xgboost_h5", "notes"}
    assert "lstm_h5: no longer in the matrix" in capsys.readouterr().out


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
    assert not [dep for dep in stages["train"]["deps"] if "test" in dep]
