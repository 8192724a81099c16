"""Search spaces: which files are accepted, how others are refused, and what is sampled."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.errors import ConfigError
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.tuning.search_space import check_space, parse_space, space_file
from barcast.yaml_io import load_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TREES = {"learning_rate": {"float": [0.01, 0.3], "log": True}, "num_leaves": {"int": [4, 64]}}
LISTED = {
    "lags": {"choice": ["all", [0, 1, 5]]},
    "spans": {"choice": [[], [2, 5]], "when": {"lags": [[0, 1, 5]]}, "else": []},
}


@pytest.fixture(scope="module")
def params():
    return load_params(REPOSITORY / "params.yaml")


def base(params, name):
    return resolve_model(params, name, params.horizons[0], Path("params.yaml")).model_dump(mode="json")


def sample(space, number=30, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space(study.ask()) for _ in range(number)]


@pytest.mark.parametrize("name", ModelRegistry.list_models())
def test_every_model_has_a_space_that_it_accepts(params, name):
    file = space_file(REPOSITORY, name)
    space = parse_space(load_yaml(file), name, file)
    check_space(space, base(params, name), name, file)
    assert bool(space.entries) == (name != "prior")
    config_class = ModelRegistry.get_metadata(name).model_class.config_class
    for sampled in sample(space, 20):
        config_class.model_validate({**base(params, name), **sampled})


@pytest.mark.parametrize(
    ("name", "key"), [("nhits", "pool_sizes"), ("patchtst", "patch_len"), ("patchtst", "patch_stride")]
)
def test_sampled_pools_and_patches_fit_the_bars_of_a_window(params, name, key):
    file = space_file(REPOSITORY, name)
    for value in parse_space(load_yaml(file), name, file).to_dict()[key]["choice"]:
        model = ModelRegistry.create(name, {**base(params, name), key: value}, params.horizons[0], ["f0"])
        model._build(model.config.lookback or params.window.seq_len, 1)


def test_every_space_belongs_to_a_model():
    assert {path.stem for path in (REPOSITORY / "config/models").iterdir()} == set(ModelRegistry.list_models())


def test_a_parsed_space_is_written_as_in_the_file():
    for content, name in ((TREES, "lightgbm"), (LISTED, "xgboost")):
        assert parse_space(content, name, "x.yaml").to_dict() == content
    for path in (REPOSITORY / "config/models").iterdir():
        assert parse_space(load_yaml(path), path.stem, path).to_dict() == load_yaml(path)


def test_sampled_values_are_inside_and_have_four_digits():
    for sampled in sample(parse_space(TREES, "lightgbm", "x.yaml"), 200):
        assert 4 <= sampled["num_leaves"] <= 64
        assert 0.01 <= sampled["learning_rate"] <= 0.3
        assert float(f"{sampled['learning_rate']:.4g}") == sampled["learning_rate"]


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e6), st.booleans())
def test_rounding_never_leaves_the_bounds(low, span, log):
    high = low + span
    if not low < high:
        return
    space = parse_space({"learning_rate": {"float": [low, high], "log": log}}, "lightgbm", "x.yaml")
    assert all(low <= sampled["learning_rate"] <= high for sampled in sample(space, 5))


def test_a_condition_decides_whether_a_key_is_sampled():
    sampled = sample(parse_space(LISTED, "xgboost", "x.yaml"), 100)
    assert {str(values["spans"]) for values in sampled if values["lags"] == "all"} == {"[]"}
    assert {str(values["spans"]) for values in sampled if values["lags"] == [0, 1, 5]} == {"[]", "[2, 5]"}
    without = {"lags": LISTED["lags"], "spans": {k: v for k, v in LISTED["spans"].items() if k != "else"}}
    assert all(
        ("spans" in values) == (values["lags"] != "all") for values in sample(parse_space(without, "xgboost", "x"), 50)
    )


def test_values_are_fixed_for_a_trial_only_where_they_are_inside():
    space = parse_space({**LISTED, **{k: v for k, v in TREES.items() if k == "learning_rate"}}, "xgboost", "x.yaml")
    inside = {"lags": [0, 1, 5], "spans": [2, 5], "learning_rate": 0.1}
    assert space.fixed_values(inside) == {"lags": "[0, 1, 5]", "spans": "[2, 5]", "learning_rate": 0.1}
    assert space.fixed_values({**inside, "lags": "all", "spans": []}) == {"lags": '"all"', "learning_rate": 0.1}
    assert space.fixed_values({**inside, "learning_rate": 0.5}) is None
    assert space.fixed_values({**inside, "lags": [0]}) is None
    assert space.fixed_values({**inside, "lags": "all"}) is None


def test_fixed_values_are_compared_by_value():
    space = parse_space({"reg_lambda": {"choice": [0, 1]}}, "xgboost", "x.yaml")
    assert space.fixed_values({"reg_lambda": 1.0}) == {"reg_lambda": "1"}
    assert space.fixed_values({"reg_lambda": True}) is None
    assert space.fixed_values({"reg_lambda": 0.5}) is None
    whole = parse_space({"reg_lambda": {"int": [0, 3]}}, "xgboost", "x.yaml")
    assert whole.fixed_values({"reg_lambda": 2.0}) == {"reg_lambda": 2}
    assert whole.fixed_values({"reg_lambda": 2.5}) is None
    switch = parse_space({"early_stopping": {"choice": [False, True]}}, "xgboost", "x.yaml")
    assert switch.fixed_values({"early_stopping": True}) == {"early_stopping": "true"}
    assert switch.fixed_values({"early_stopping": 1}) is None
    hung = {"max_depth": {"int": [2, 3], "when": {"reg_lambda": [1.0]}, "else": 5}}
    both = parse_space({"reg_lambda": {"choice": [0, 1]}, **hung}, "xgboost", "x.yaml")
    assert both.fixed_values({"reg_lambda": 1.0, "max_depth": 3}) == {"reg_lambda": "1", "max_depth": 3}
    assert both.fixed_values({"reg_lambda": 0.0, "max_depth": 5}) == {"reg_lambda": "0"}


def test_identity_fields_are_not_tunable():
    for name in ("threads", "random_seed", "horizon", "device"):
        with pytest.raises(ConfigError, match=f"x.yaml: unknown key '{name}'"):
            parse_space({name: {"int": [1, 2]}}, "lstm", "x.yaml")
    assert list(parse_space({"learning_rate": {"float": [0.1, 0.2]}}, "lstm", "x.yaml").entries) == ["learning_rate"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"max_dept": {"int": [2, 3]}}, r"x.yaml: unknown key 'max_dept'; did you mean 'max_depth'\?"),
        ({"threads": {"int": [1, 2]}}, "x.yaml: unknown key 'threads'; "),
        ({"max_depth": {"int": [8, 3]}}, r"max_depth.int = \[8, 3\]: expected the lower bound first"),
        ({"max_depth": {"int": [3, 3]}}, "expected the lower bound first, below the upper one"),
        ({"max_depth": {"int": [3.0, 8]}}, r"max_depth.int = \[3.0, 8\]: expected two whole numbers, \[low, high\]"),
        ({"max_depth": {"int": [3]}}, "expected two whole numbers"),
        ({"max_depth": 3}, r"max_depth = 3: expected one of \{int: \[low, high\]\}"),
        ({"max_depth": {"int": [3, 8], "float": [3, 8]}}, "expected one of {int"),
        ({"max_depth": {"int": [3, 8], "stepp": 2}}, "unknown key 'max_depth.stepp'"),
        ({"learning_rate": {"float": [0.0, 0.3], "log": True}}, "expected bounds above 0 with log: true"),
        ({"learning_rate": {"float": [0.1, 0.3], "log": 1}}, "learning_rate.log = 1: expected a valid boolean"),
        ({"lags": {"choice": []}}, r"lags.choice = \[\]: expected a list of values"),
        (
            {"lags": {"choice": ["all", "all"]}},
            r"lags.choice = \['all', 'all'\]: expected each value once; 'all' is",
        ),
        (
            {"reg_lambda": {"choice": [1, 1.0]}},
            r"reg_lambda.choice = .*: expected each value once; 1.0 is repeated",
        ),
        ({"lags": {"choice": ["all"], "log": True}}, "lags: expected `log` only with int or float"),
        ({"spans": {"choice": [[]], "when": {"lags": ["all"]}}}, "spans.when.lags: expected a key above spans: none"),
        (
            {**LISTED, "spans": {"choice": [[]], "when": {"lags": "all"}}},
            "when.lags = 'all': expected a list of values",
        ),
        ({**LISTED, "spans": {"choice": [[]], "when": {"lags": [[9]]}}}, "expected a value that lags can take"),
        ({"lags": {"choice": ["all"], "else": "all"}}, "expected `when` together with `else`"),
    ],
)
def test_a_bad_entry_is_refused(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_space(content, "xgboost", "x.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"max_depth": {"int": [0, 3]}}, r"max_depth = 0: expected .*greater than or equal to 1 \(when max_depth = 0"),
        ({"max_depth": {"int": [2, 99]}}, r"\(when max_depth = 99 is tried\)"),
        ({"max_depth": {"float": [2.0, 3.0]}}, "max_depth = 2.0: expected"),
        ({"lags": {"choice": ["every"]}}, "lags = 'every': expected 'all', or a list of bars"),
        ({"spans": {"choice": [[], [5]]}}, r"no spans beside lags = 'all'.*\(when spans = \[5\] is tried\)"),
        ({**LISTED, "spans": {**LISTED["spans"], "else": [9]}}, r"no spans beside lags = 'all'.*when lags = \"all\""),
    ],
)
def test_values_that_the_model_would_refuse_are_refused_before_any_trial(params, content, message):
    space = parse_space(content, "xgboost", "x.yaml")
    with pytest.raises(ConfigError, match=message):
        check_space(space, base(params, "xgboost") | {"lags": "all"}, "xgboost", "x.yaml")
