"""The trainer and the train stage: in order, on train and val alone, with the libraries that the spec names."""

import json
import shutil

import numpy as np
import pytest
import yaml

from _cells import FEATURES, register_stubs, write_windows
from barcast import tracking
from barcast.cache.keys import cell_key
from barcast.data.dataset import DatasetConfig
from barcast.errors import ConfigError, ModelError
from barcast.models.base import BaseModel
from barcast.models.registry import ModelRegistry
from barcast.paths import Paths
from barcast.probabilities import log_loss
from barcast.stages import repeat
from barcast.stages.train import main, train
from barcast.training.trainer import Trainer

STUB = {
    "model_name": "stub",
    "model_family": "test",
    "horizon": 5,
    "random_seed": 1,
    "threads": 1,
    "sharpness": 2.0,
}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    register_stubs(monkeypatch, "stub")
    paths = Paths(tmp_path)
    write_windows(paths)
    return paths


def trainer(paths, **options):
    return Trainer("stub", STUB, DatasetConfig(path=str(paths.windows), horizon=5), **options)


def test_the_full_pipeline_trains_saves_and_scores(paths, tmp_path):
    logged = []
    one = trainer(paths, log=lambda metrics, step: logged.append((step, dict(metrics))))
    scores = one.run_full_pipeline(tmp_path / "model")
    val = one.dataset.split("val")
    loaded = ModelRegistry.get_metadata("stub").model_class.load(tmp_path / "model")
    probabilities = loaded.predict_proba(val.X)
    assert scores["log_loss"] == log_loss(probabilities, val.y)
    assert scores["accuracy"] == np.mean(probabilities.argmax(axis=1) - 1 == val.y)
    assert [step for step, _ in logged] == list(range(12))
    assert loaded.feature_columns == FEATURES


def test_steps_taken_out_of_order_are_refused(paths):
    with pytest.raises(ModelError, match="evaluate was called before train"):
        trainer(paths).evaluate()
    built = trainer(paths)
    built.build_model()
    with pytest.raises(ModelError, match="evaluate was called before train"):
        built.evaluate()


def test_the_test_split_is_out_of_reach(paths):
    shutil.rmtree(paths.windows / "test")
    (paths.windows / "labels/test_h5.npy").unlink()
    one = trainer(paths)
    one.run_full_pipeline()
    with pytest.raises(ModelError, match="may not open the test split"):
        one.evaluate("test")


def write_spec(paths, libraries):
    paths.specs.mkdir(parents=True, exist_ok=True)
    content = {"cell": "stub_h5", "model": "stub", "horizon": 5, "config": STUB, "code": {}, "libraries": libraries}
    paths.spec("stub_h5").write_text(yaml.safe_dump(content))


def outputs(paths):
    return {p.relative_to(paths.runs): p.read_bytes() for p in sorted(paths.runs.rglob("*")) if p.is_file()}


def test_the_stage_writes_checkpoint_and_live_files_the_same_bytes_twice(paths):
    write_spec(paths, {})
    train("stub", 5, paths)
    first = outputs(paths)
    shutil.rmtree(paths.runs)
    train("stub", 5, paths)
    assert outputs(paths) == first
    history = json.loads((paths.checkpoint("stub_h5") / "model.json").read_text())["training_history"]
    curve = (paths.live("stub_h5") / "plots/metrics/val_log_loss.tsv").read_text().splitlines()
    assert len(curve) == len(history) + 1


def test_another_library_version_than_the_spec_names_is_refused(paths):
    write_spec(paths, {"numpy": "1.0"})
    with pytest.raises(
        ConfigError, match=r"stub_h5: its spec lists numpy 1.0, but 2\..* is installed; run `pip install"
    ):
        train("stub", 5, paths)
    assert not paths.runs.exists()


def test_a_failed_training_leaves_the_last_result(paths, monkeypatch):
    write_spec(paths, {})
    train("stub", 5, paths)
    before = outputs(paths)

    def fail(self, *arguments):
        raise ModelError("diverged")

    monkeypatch.setattr(ModelRegistry.get_metadata("stub").model_class, "_fit", fail)
    with pytest.raises(ModelError, match="diverged"):
        train("stub", 5, paths)
    assert outputs(paths) == before


def test_what_is_kept_of_a_training_goes_once_its_model_is_saved_and_scored(paths, monkeypatch):
    write_spec(paths, {})
    kept = paths.unfinished("stub_h5") / cell_key(paths, "stub", 5)
    kept.mkdir(parents=True)

    def fill_up(model, path):
        raise OSError("no space left on device")

    with monkeypatch.context() as full:
        full.setattr(BaseModel, "save", fill_up)
        with pytest.raises(OSError, match="no space left"):
            train("stub", 5, paths)
    assert kept.exists()
    train("stub", 5, paths)
    assert not kept.exists()


def stopped(method, error, paths, monkeypatch):
    """The stage as it trains from a new spec and `method` raises."""
    write_spec(paths, {"numpy": np.__version__})

    def stop(*arguments):
        raise error

    with monkeypatch.context() as stopping:
        stopping.setattr(method, stop)
        with pytest.raises(type(error)):
            train("stub", 5, paths)


def test_a_kill_after_the_model_is_saved_does_not_pair_it_with_the_key_before(paths, monkeypatch):
    write_spec(paths, {})
    train("stub", 5, paths)
    first = tracking.cell_on_disk(paths, "stub_h5").key
    stopped("barcast.training.trainer.Trainer.evaluate", KeyboardInterrupt(), paths, monkeypatch)
    assert tracking.cell_on_disk(paths, "stub_h5") is None
    train("stub", 5, paths)
    assert tracking.cell_on_disk(paths, "stub_h5").key == cell_key(paths, "stub", 5) != first


def test_a_model_that_can_not_be_saved_leaves_the_last_result(paths, monkeypatch):
    write_spec(paths, {})
    train("stub", 5, paths)
    before = outputs(paths)
    stopped("barcast.models.base.BaseModel.save", OSError("disk full"), paths, monkeypatch)
    assert outputs(paths) == before


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        (main, ("stub", "five"), "horizon 'five': expected a whole number of bars such as 5"),
        (repeat.main, ("stub", "five", "1"), "horizon 'five': expected a whole number of bars such as 5"),
        (repeat.main, ("stub", "5", "-1"), "seed '-1': expected a whole number such as 1"),
    ],
)
def test_arguments_that_are_no_number_are_one_line(stage, arguments, message):
    with pytest.raises(ConfigError, match=message):
        stage(*arguments)
