"""Models by name."""

import json
import subprocess
import sys

import pytest

from barcast.errors import ModelError
from barcast.models.base import BaseModel
from barcast.models.prior import Prior
from barcast.models.registry import ModelRegistry

HEAVY = {"catboost", "lightgbm", "mlflow", "neuralforecast", "optuna", "ray", "sklearn", "torch", "xgboost"}
NETWORK = {"neuralforecast", "ray", "sklearn", "torch"}
OWN = {"prior": set(), "logistic": {"sklearn"}, **{name: {name} for name in ("xgboost", "lightgbm", "catboost")}}


@pytest.fixture
def registry(monkeypatch):
    """The real registry, whose content is put back afterwards."""
    ModelRegistry.list_models()
    monkeypatch.setattr(BaseModel, "registered", dict(BaseModel.registered))
    return ModelRegistry


def test_the_files_of_the_folder_are_the_models(registry):
    assert {"prior", "logistic", "xgboost", "lightgbm", "catboost"} <= set(registry.list_models())
    assert registry.list_models() == sorted(registry.list_models())
    for name in registry.list_models():
        assert registry.get_metadata(name).module == f"barcast.models.{name}"


def test_families_are_listed_apart(registry):
    assert registry.list_models("gbdt") == ["catboost", "lightgbm", "xgboost"]
    assert registry.list_models("baseline") == ["prior"]
    with pytest.raises(ModelError, match=r"unknown family 'boost'; known families: attention, baseline, gbdt, linear"):
        registry.list_models("boost")


def test_short_and_full_names_find_the_same(registry):
    metadata = registry.get_metadata("xgboost")
    assert metadata == registry.get_metadata("gbdt:xgboost")
    assert (metadata.key, metadata.family, metadata.requires_gpu) == ("gbdt:xgboost", "gbdt", False)
    assert metadata.description


def test_create_gives_an_unfitted_model(registry):
    config = {"model_name": "prior", "model_family": "baseline", "horizon": 5, "random_seed": 1, "threads": 1}
    model = registry.create("prior", config, 5, ["a"])
    assert isinstance(model, Prior)
    assert not model.is_fitted


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xgbost", r"unknown model 'xgbost'; did you mean 'xgboost'\?"),
        ("gbdt:prior", r"unknown model 'gbdt:prior'"),
        ("qqqq", r"unknown model 'qqqq'; known models: catboost, gru, lightgbm"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(registry, name, message):
    with pytest.raises(ModelError, match=message):
        registry.get_metadata(name)


def test_a_name_in_two_families_must_be_said_in_full(registry):
    class Other(Prior):
        pass

    registry.register("prior", "other", "another prior")(Other)
    with pytest.raises(ModelError, match=r"model 'prior' is ambiguous; use one of baseline:prior, other:prior"):
        registry.get_metadata("prior")
    assert registry.get_metadata("other:prior").model_class is Other


def test_a_key_that_is_taken_is_refused(registry):
    class Usurper(Prior):
        pass

    with pytest.raises(ModelError, match=r"gbdt:xgboost: already registered by barcast.models.xgboost"):
        registry.register("xgboost", "gbdt", "mine")(Usurper)
    assert registry.get_metadata("xgboost").model_class is not Usurper


def test_a_second_class_of_the_same_module_is_refused_and_the_same_one_is_not(registry):
    def make(name):
        return type(name, (Prior,), {"__module__": "mine"})

    registry.register("mine", "own", "one")(make("One"))
    registry.register("mine", "own", "the same, loaded again")(make("One"))
    with pytest.raises(ModelError, match=r"own:mine: already registered by mine; choose another name"):
        registry.register("mine", "own", "another")(make("Other"))


def test_another_models_config_is_refused(registry):
    config = {"model_name": "logistic", "model_family": "baseline", "horizon": 5, "random_seed": 1, "threads": 1}
    with pytest.raises(ModelError, match=r"prior: its config is that of 'logistic'; give it its own"):
        registry.create("prior", config, 5, ["a"])


@pytest.mark.parametrize("thing", [dict, Prior.__init__, "prior"])
def test_what_is_no_model_is_refused(registry, thing):
    with pytest.raises(ModelError, match=r"gbdt:thing: expected a subclass of BaseModel, got"):
        registry.register("thing", "gbdt", "no model")(thing)
    assert "thing" not in registry.list_models()


def test_every_model_derives_from_the_base_by_at_most_two_steps(registry):
    for name in registry.list_models():
        ancestors = registry.get_metadata(name).model_class.__mro__
        assert ancestors.index(BaseModel) <= 2


def test_listing_imports_no_library_and_creating_imports_the_models_own_alone(committed_params):
    script = f"""
import json, sys
from pathlib import Path
from types import SimpleNamespace
heavy = lambda: sorted({HEAVY!r} & set(sys.modules))
from barcast.models.registry import ModelRegistry
from barcast.params import resolve_model
loaded = {{"": heavy()}}
names = ModelRegistry.list_models()
loaded["list_models"] = heavy()
params = SimpleNamespace(seed=1, model=json.loads(sys.stdin.read()))
for name in names:
    before = set(heavy())
    ModelRegistry.create(name, resolve_model(params, name, 5, Path("params.yaml")), 5, ["a", "b"])
    loaded[name] = sorted(set(heavy()) - before)
print(json.dumps(loaded))
"""
    content = json.dumps(committed_params["model"])
    run = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, text=True, check=True)
    loaded = json.loads(run.stdout)
    assert loaded.pop("") == []
    assert loaded.pop("list_models") == []
    assert set(loaded) == set(ModelRegistry.list_models())
    for name, libraries in loaded.items():
        assert set(libraries) <= OWN.get(name, NETWORK)
