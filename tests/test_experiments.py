"""Named experiments and adopting: checked overrides, and files that keep their comments."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from barcast import cli
from barcast.adopt import adopt, set_values
from barcast.errors import ConfigError, DataError, ModelError
from barcast.experiments import Experiment, check_overrides, list_experiments, load_experiment, merge
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.paths import Paths
from barcast.yaml_io import parse_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PARAMS = (REPOSITORY / "params.yaml").read_text()


@pytest.fixture
def root(tmp_path):
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def write(root, name, text):
    (root / f"config/experiments/{name}.yaml").write_text(text)


def tuned(root, model="lightgbm", horizon=5, **values):
    folder = Paths(root).tune / f"{model}_h{horizon}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "best_params.yaml").write_text(yaml.safe_dump({"model": {model: {f"h{horizon}": values}}}))


@pytest.mark.parametrize("name", ["quick", "baseline", "production"])
def test_the_committed_experiments_are_valid_and_described(name):
    experiment = load_experiment(REPOSITORY, name)
    assert experiment.description
    assert experiment.values


@pytest.mark.parametrize(("name", "stride"), [("quick", 24), ("baseline", 1), ("production", 1)])
def test_each_model_of_an_experiment_trains_on_as_many_windows_as_its_description_says(root, name, stride):
    """A model's block of params.yaml wins over the shared value, which may have no effect in an experiment."""
    merged = merge(yaml.safe_load(PARAMS), load_experiment(REPOSITORY, name).values)
    (root / "params.yaml").write_text(yaml.safe_dump(merged))
    params = load_params(root / "params.yaml")
    configs = {model: resolve_model(params, model, horizon, root) for model, horizon in params.cells()}
    strides = {model: config.train_stride for model, config in configs.items() if hasattr(config, "train_stride")}
    assert strides == dict.fromkeys(strides, stride)


def test_production_has_every_model():
    assert set(load_experiment(REPOSITORY, "production").values["models"]) <= set(ModelRegistry.list_models())


def test_blocks_are_merged_and_everything_else_is_replaced():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert merge(base, {"a": {"y": [9], "z": None}, "c": {}}) == {"a": {"x": 1, "y": [9], "z": None}, "b": 3, "c": {}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    # what a study writes; ruamel.yaml itself rounds subnormal numbers when it writes them a second time
    st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda number: float(f"{number:.4g}")),
    st.text(st.sampled_from("abz 09_-:,.'\"\\[]{}()=%é"), max_size=12),
    st.lists(
        st.one_of(st.integers(0, 99), st.lists(st.integers(0, 9), max_size=3), st.sampled_from(["all", "2h"])),
        max_size=4,
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["symbols", "new", "deep"]), LEAVES, min_size=1))
def test_dvc_reads_the_overrides_as_they_are_meant(tmp_path_factory, values):
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    file = tmp_path_factory.mktemp("o") / "params.yaml"
    base = {"symbols": ["BTC"], "model": {"threads": 2, "xgboost": {"max_depth": None}}}
    file.write_text(yaml.safe_dump(base))
    nested = {**values, "model": {"xgboost": {"h5": values}}}
    overrides = Experiment("x", "", nested).overrides()
    sweeps = list(get_hydra_sweeps({file.name: overrides}))
    assert len(sweeps) == 1  # a list is a value, not a sweep
    apply_overrides(file, sweeps[0][file.name])
    assert parse_yaml(file.read_text()) == merge(base, nested)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {max_dept: 3}\n", "config/experiments/x.yaml: unknown key 'model.max_dept'; did you mean 'max_depth'"),
        ("seed: many\n", "config/experiments/x.yaml: seed = 'many': expected a valid integer"),
        ("models: [xgbost]\n", "config/experiments/x.yaml: .*did you mean 'xgboost'"),
        ("- 1\n", "expected a mapping of keys to values"),
        ("horizons: [20]\n", r"tune.horizons = \[5\]: expected some of horizons = \[20\]; set tune.horizons too"),
        ("ensemble: {weights: {h5: {xgboost: 0.5}}}\n", "expected weights of at least 0 that sum to 1"),
        ("ensemble: {weights: {h9: {xgboost: 1.0}}}\n", "unknown key 'ensemble.weights.h9'"),
        (
            "ensemble: {weights: {h5: {xgbost: 1.0}}}\n",
            "unknown key 'ensemble.weights.h5.xgbost'; did you mean 'xgboost'",
        ),
    ],
)
def test_an_experiment_that_params_would_refuse_is_refused(root, text, message):
    write(root, "x", text)
    with pytest.raises(ConfigError, match=message):
        load_experiment(root, "x")


def test_an_unknown_name_and_a_reserved_one(root):
    with pytest.raises(ConfigError, match=r"config/experiments/quik.yaml: no such experiment; did you mean 'quick'\?"):
        load_experiment(root, "quik")
    write(root, "list", "seed: 1\n")
    with pytest.raises(ConfigError, match="and not 'list'; rename the file"):
        list_experiments(root)


@pytest.mark.parametrize("model", ModelRegistry.list_models())
@pytest.mark.parametrize("horizon", [5, 20])
def test_adopting_into_params_adds_lines_and_changes_none(root, model, horizon):
    shared = {"prior": {}, "logistic": {"lags": [0, 1], "C": 0.125}}.get(model, {"learning_rate": 0.0625})
    tuned(root, model, horizon, **shared)
    change = adopt(root, f"tune@{model}-{horizon}", into_params=True)
    after = (root / "params.yaml").read_text()
    assert not [line for line in change.splitlines() if re.match(r"-(?!--)", line) and line != "-  prior: {}"]
    content, expected = yaml.safe_load(after), yaml.safe_load(PARAMS)
    assert content == merge(expected, {"model": {model: {f"h{horizon}": shared}}})
    kept = [line for line in after.splitlines() if "#" in line]
    assert kept == [line for line in PARAMS.splitlines() if "#" in line]
    assert adopt(root, f"tune@{model}-{horizon}", into_params=True) == ""


def test_adopting_again_replaces_the_values_and_shows_it(root):
    tuned(root, learning_rate=0.0625, num_leaves=9)
    first = adopt(root, "tune@lightgbm-5", into_params=False)
    assert "+++ b/config/experiments/production.yaml" in first
    assert "+      learning_rate: 0.0625\n" in first
    tuned(root, learning_rate=0.03125, num_leaves=9)
    second = adopt(root, "lightgbm-5", into_params=False)
    changed = [line for line in second.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-      learning_rate: 0.0625", "+      learning_rate: 0.03125"]
    assert load_experiment(root, "production").values["model"]["lightgbm"]["h5"]["num_leaves"] == 9


def test_values_that_are_refused_are_not_written(root):
    tuned(root, num_leaves=1)
    before = (root / "config/experiments/production.yaml").read_text()
    with pytest.raises(ConfigError, match=r"config/experiments/production.yaml: model.lightgbm.h5.num_leaves = 1"):
        adopt(root, "tune@lightgbm-5", into_params=False)
    assert (root / "config/experiments/production.yaml").read_text() == before


def test_a_target_that_can_not_be_adopted_is_refused_with_a_remedy(root):
    with pytest.raises(ConfigError, match="xgboost: expected tune@model-horizon, such as tune@xgboost-5"):
        adopt(root, "xgboost", into_params=False)
    with pytest.raises(ConfigError, match=r"params.yaml: horizon 7 is not in the matrix; horizons: 5, 20"):
        adopt(root, "tune@gru-7", into_params=False)
    with pytest.raises(ModelError, match=r"unknown model 'xgbost'; did you mean 'xgboost'\?"):
        adopt(root, "tune@xgbost-5", into_params=False)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("tune@lightgbm-5", "dvc repro tune@lightgbm-5"),
        ("tune@xgboost-5", "dvc exp run -S 'tune.models=[lightgbm,xgboost]' tune@xgboost-5"),
        ("lightgbm-20", "dvc exp run -S 'tune.horizons=[5,20]' tune@lightgbm-20"),
        ("gru-20", "dvc exp run -S 'tune.models=[lightgbm,gru]' -S 'tune.horizons=[5,20]' tune@gru-20"),
    ],
)
def test_a_cell_that_was_not_tuned_is_refused_with_the_command_that_tunes_it(root, target, command):
    with pytest.raises(DataError, match=re.escape(f"best_params.yaml: no such file; run `{command}` first")):
        adopt(root, target, into_params=False)
    changes = [change.removeprefix("tune.") for change in re.findall(r"'(.*?)'", command)]
    check_overrides(root / "params.yaml", [f"tune.{change}" for change in changes])


def test_a_missing_production_file_is_created(root):
    (root / "config/experiments/production.yaml").unlink()
    tuned(root, learning_rate=0.0625)
    assert "--- a/config/experiments/production.yaml" in adopt(root, "tune@lightgbm-5", into_params=False)
    assert yaml.safe_load((root / "config/experiments/production.yaml").read_text())["model"]["lightgbm"]["h5"]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["prior", "logistic", "gru"]),
    st.dictionaries(st.sampled_from(["a", "b", "spans", "lags"]), LEAVES, min_size=1, max_size=4),
)
@example("gru", {"a": 1e-05})
def test_values_are_set_without_touching_anything_else(model, values):
    after = set_values(SMALL, {"model": {model: {"h5": values}}})
    assert yaml.safe_load(after) == merge(yaml.safe_load(SMALL), {"model": {model: {"h5": values}}})
    assert set(SMALL.splitlines()) - {"  prior: {}"} <= set(after.splitlines())
    assert set_values(after, {}) == after


SMALL = """\
# The whole of it.
seed: 42   # the seed

model:                # shared
  threads: 2
  prior: {}
  logistic:           # linear
    C: 0.01
    lags: [0, 1]      # bars

  gru:
    layers: 1

# at the end
evaluate:
  cost_bps: 5.0       # paid
"""


def test_no_values_change_nothing():
    assert set_values(PARAMS, {}) == PARAMS


@pytest.fixture
def barcast(root, monkeypatch, capsys):
    monkeypatch.chdir(root)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["barcast", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def test_the_command_lists_and_adopts(barcast, root):
    code, out, _ = barcast("exp", "list")
    assert code == 0
    assert [name for name in ("quick", "baseline", "production") if name in out] == ["quick", "baseline", "production"]
    tuned(root, learning_rate=0.0625)
    assert "+      learning_rate: 0.0625" in barcast("adopt", "tune@lightgbm-5")[1]
    assert barcast("adopt", "tune@lightgbm-5")[1] == "tune@lightgbm-5: nothing to change, the file has these values\n"
    code, _, err = barcast("exp", "quik")
    assert (code, err) == (1, "error: config/experiments/quik.yaml: no such experiment; did you mean 'quick'?\n")


def git(root, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_command_hands_checked_overrides_to_dvc(barcast, root, monkeypatch):
    from barcast.cli import pipeline

    seen = []
    monkeypatch.setattr(pipeline, "run_dvc", lambda root, *arguments: seen.append(list(arguments)))
    write(root, "mine", "# Mine.\nseed: 7\nmodel: {xgboost: {h5: {max_depth: 3}}}\n")
    overrides = ["-S=++seed=7", "-S=++model.xgboost.h5.max_depth=3"]
    assert barcast("exp", "mine", "--queue")[0] == 0
    assert seen == [["exp", "run", "--name", "mine", "--queue", *overrides]]
    git(root, "init", "-q")
    git(root, "commit", "-q", "--allow-empty", "-m", "start")
    head = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/mine", "HEAD")
    code, _, err = barcast("exp", "mine")
    assert (code, err) == (1, "error: experiment 'mine' is there already; `barcast exp mine --force` replaces it\n")
    seen.clear()
    assert barcast("exp", "mine", "--force")[0] == 0
    assert seen == [["exp", "remove", "mine"], ["exp", "run", "--name", "mine", *overrides]]
