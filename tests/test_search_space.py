"""Search spaces: what a file may say, what is refused and in which words, and what is drawn."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config import load_yaml
from barcast.errors import ConfigError
from barcast.models.registry import ModelRegistry
from barcast.params import load_params, resolve_model
from barcast.tuning.search_space import check_space, load_space, parse_space, space_file, tunable

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


def draw(space, number=30, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space(study.ask()) for _ in range(number)]


@pytest.mark.parametrize("name", ModelRegistry.list_models())
def test_every_model_has_a_space_that_it_accepts(params, name):
    file = space_file(REPOSITORY, name)
    space = load_space(file, name)
    check_space(space, base(params, name), name, file)
    assert bool(space.entries) == (name != "prior")
    config_class = ModelRegistry.get_metadata(name).model_class.config_class
    for drawn in draw(space, 20):
        config_class.model_validate({**base(params, name), **drawn})


@pytest.mark.parametrize(
    ("name", "key"), [("nhits", "pool_sizes"), ("patchtst", "patch_len"), ("patchtst", "patch_stride")]
)
def test_what_a_network_may_try_fits_the_bars_that_it_sees(params, name, key):
    for value in load_space(space_file(REPOSITORY, name), name).to_dict()[key]["choice"]:
        model = ModelRegistry.create(name, {**base(params, name), key: value}, params.horizons[0], ["f0"])
        model._build(model.config.lookback or params.window.seq_len, 1)


def test_every_space_belongs_to_a_model():
    assert {path.stem for path in (REPOSITORY / "config/models").iterdir()} == set(ModelRegistry.list_models())


def test_what_was_parsed_is_written_as_it_stood():
    for content, name in ((TREES, "lightgbm"), (LISTED, "xgboost")):
        assert parse_space(content, name, "x.yaml").to_dict() == content
    for path in (REPOSITORY / "config/models").iterdir():
        assert load_space(path, path.stem).to_dict() == load_yaml(path)


def test_draws_lie_inside_and_have_four_digits():
    for drawn in draw(parse_space(TREES, "lightgbm", "x.yaml"), 200):
        assert 4 <= drawn["num_leaves"] <= 64
        assert 0.01 <= drawn["learning_rate"] <= 0.3
        assert float(f"{drawn['learning_rate']:.4g}") == drawn["learning_rate"]


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e6), st.booleans())
def test_rounding_never_leaves_the_bounds(low, span, log):
    high = low + span
    if not low < high:
        return
    space = parse_space({"learning_rate": {"float": [low, high], "log": log}}, "lightgbm", "x.yaml")
    assert all(low <= drawn["learning_rate"] <= high for drawn in draw(space, 5))


def test_a_condition_decides_whether_a_key_is_drawn():
    drawn = draw(parse_space(LISTED, "xgboost", "x.yaml"), 100)
    assert {str(values["spans"]) for values in drawn if values["lags"] == "all"} == {"[]"}
    assert {str(values["spans"]) for values in drawn if values["lags"] == [0, 1, 5]} == {"[]", "[2, 5]"}
    without = {"lags": LISTED["lags"], "spans": {k: v for k, v in LISTED["spans"].items() if k != "else"}}
    assert all(
        ("spans" in values) == (values["lags"] != "all") for values in draw(parse_space(without, "xgboost", "x"), 50)
    )


def test_own_values_are_told_to_a_trial_only_where_they_lie_inside():
    space = parse_space({**LISTED, **{k: v for k, v in TREES.items() if k == "learning_rate"}}, "xgboost", "x.yaml")
    inside = {"lags": [0, 1, 5], "spans": [2, 5], "learning_rate": 0.1}
    assert space.distributions_of(inside) == {"lags": "[0, 1, 5]", "spans": "[2, 5]", "learning_rate": 0.1}
    assert space.distributions_of({**inside, "lags": "all", "spans": []}) == {"lags": '"all"', "learning_rate": 0.1}
    assert space.distributions_of({**inside, "learning_rate": 0.5}) is None
    assert space.distributions_of({**inside, "lags": [0]}) is None
    assert space.distributions_of({**inside, "lags": "all"}) is None


def test_own_values_are_compared_by_value():
    space = parse_space({"reg_lambda": {"choice": [0, 1]}}, "xgboost", "x.yaml")
    assert space.distributions_of({"reg_lambda": 1.0}) == {"reg_lambda": "1"}
    assert space.distributions_of({"reg_lambda": True}) is None
    assert space.distributions_of({"reg_lambda": 0.5}) is None
    whole = parse_space({"reg_lambda": {"int": [0, 3]}}, "xgboost", "x.yaml")
    assert whole.distributions_of({"reg_lambda": 2.0}) == {"reg_lambda": 2}
    assert whole.distributions_of({"reg_lambda": 2.5}) is None
    switch = parse_space({"early_stopping": {"choice": [False, True]}}, "xgboost", "x.yaml")
    assert switch.distributions_of({"early_stopping": True}) == {"early_stopping": "true"}
    assert switch.distributions_of({"early_stopping": 1}) is None
    hung = {"max_depth": {"int": [2, 3], "when": {"reg_lambda": [1.0]}, "else": 5}}
    both = parse_space({"reg_lambda": {"choice": [0, 1]}, **hung}, "xgboost", "x.yaml")
    assert both.distributions_of({"reg_lambda": 1.0, "max_depth": 3}) == {"reg_lambda": "1", "max_depth": 3}
    assert both.distributions_of({"reg_lambda": 0.0, "max_depth": 5}) == {"reg_lambda": "0"}


def test_identity_fields_are_not_tunable():
    fields = tunable(ModelRegistry.get_metadata("lstm").model_class.config_class)
    assert not {"threads", "random_seed", "horizon", "device"} & set(fields)
    assert "learning_rate" in fields


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
        ({"learning_rate": {"float": [0.0, 0.3], "log": True}}, "expected bounds above 0 beside log: true"),
        ({"learning_rate": {"float": [0.1, 0.3], "log": 1}}, "learning_rate.log = 1: expected true or false"),
        ({"lags": {"choice": []}}, r"lags.choice = \[\]: expected a list of values"),
        ({"lags": {"choice": ["all", "all"]}}, "lags.choice = 'all': expected each value once"),
        ({"reg_lambda": {"choice": [1, 1.0]}}, "reg_lambda.choice = 1.0: expected each value once"),
        ({"lags": {"choice": ["all"], "log": True}}, "unknown key 'lags.log'"),
        ({"spans": {"choice": [[]], "when": {"lags": ["all"]}}}, "spans.when.lags: expected a key that stands above"),
        ({**LISTED, "spans": {"choice": [[]], "when": {"lags": "all"}}}, "expected a list of the values at which"),
        ({**LISTED, "spans": {"choice": [[]], "when": {"lags": [[9]]}}}, "expected a value that lags can take"),
        ({"lags": {"choice": ["all"], "else": "all"}}, "expected `when` beside `else`"),
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
def test_what_the_model_would_refuse_is_refused_at_once(params, content, message):
    space = parse_space(content, "xgboost", "x.yaml")
    with pytest.raises(ConfigError, match=message):
        check_space(space, base(params, "xgboost") | {"lags": "all"}, "xgboost", "x.yaml")
