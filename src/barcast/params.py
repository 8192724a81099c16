"""The whole of `params.yaml`: every section's schema put together, and each cell's hyperparameters resolved."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from barcast.config import Section, load_yaml, unknown_key, validate
from barcast.data.labels import LabelSection
from barcast.data.splits import SplitConfig
from barcast.data.windows import WindowConfig
from barcast.errors import ConfigError, ModelError
from barcast.evaluation.evaluator import EvaluateSection
from barcast.evaluation.pooling import EnsembleSection
from barcast.evaluation.standings import SignificanceConfig
from barcast.models.base import ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.serving.gates import PromoteConfig
from barcast.stages.audit import AuditedDataConfig
from barcast.tuning.settings import TuneConfig

_HORIZON_BLOCK = re.compile(r"h\d+")
_MOVED = {
    "window.train_stride": "it is 'model.train_stride' now, of each model",
    "ensemble.stack": "the stack is gone; 'evaluate.out_of_fold' says which models are fitted out of fold",
}
_GIVEN = {"model_name", "model_family", "horizon", "random_seed"}  # filled in, not set by the user


def _unique(values: list[Any]) -> list[Any]:
    repeated = [value for position, value in enumerate(values) if value in values[:position]]
    if repeated:
        raise ValueError(f"each entry once; {repeated[0]!r} stands twice")
    return values


class CompareSection(SignificanceConfig):
    """`compare:` of params.yaml."""

    reference: str


class Params(Section):
    """All of params.yaml. `model` stays plain here; `resolve_model` gives each cell its own."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    symbols: Annotated[list[str], Field(min_length=1), AfterValidator(_unique)]
    horizons: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_unique)]
    models: Annotated[list[str], Field(min_length=1), AfterValidator(_unique)]
    data: AuditedDataConfig
    label: LabelSection
    split: SplitConfig
    window: WindowConfig
    model: dict[str, Any]
    evaluate: EvaluateSection
    tune: TuneConfig
    ensemble: EnsembleSection
    compare: CompareSection
    promote: PromoteConfig

    @model_validator(mode="after")
    def _purge_covers_labels(self) -> Params:
        reach = self.label.longest_reach()
        if self.data.source == "bars" and self.split.purge_bars < reach:
            raise ValueError(f"split.purge_bars ≥ {reach}, the longest label reach, got {self.split.purge_bars}")
        return self

    @model_validator(mode="after")
    def _seeds_differ(self) -> Params:
        seeds = self.evaluate.seeds
        if len({self.seed, *seeds}) < 1 + len(seeds):
            raise ValueError(f"evaluate.seeds that differ from each other and from seed {self.seed}, got {seeds}")
        return self

    def reach(self, horizon: int) -> int:
        """How many bars ahead a label looks; of labels made elsewhere at least the horizon's own length, and `compare`
        finds in the windows how much further."""
        if self.data.source == "splits":
            return horizon
        return max(self.label.barriers(symbol, horizon).max_bars for symbol in self.symbols)

    def tuned_cells(self) -> Iterator[tuple[str, int]]:
        """Every (model, horizon) that is tuned."""
        for model in self.tune.models:
            for horizon in self.tune.horizons:
                yield model, horizon

    def ensemble_members(self) -> list[str]:
        """The models of the matrix that an ensemble is made of: baselines have nothing to add."""
        others = [name for name in self.models if ModelRegistry.get_metadata(name).family != "baseline"]
        return others or list(self.models)

    def cells(self) -> Iterator[tuple[str, int]]:
        """Every (model, horizon) of the matrix, in the order of `models` and `horizons`."""
        for model in self.models:
            for horizon in self.horizons:
                yield model, horizon


def load_params(path: Path) -> Params:
    """Read and check params.yaml, every model's block included, also of models outside the matrix.

    Raises:
        ConfigError: naming file, key, value, what is allowed, and the closest known key.
    """
    content = load_yaml(path)
    _check_moved(content, path)
    params = validate(Params, content, path)
    for key, names in (
        ("models", params.models),
        ("tune.models", params.tune.models),
        ("evaluate.out_of_fold", [] if params.evaluate.out_of_fold == "all" else params.evaluate.out_of_fold),
    ):
        _check_names(names, key, path)
    if params.data.source == "bars":
        params.label.check(params.symbols, params.horizons)
    _check_horizons(params, path)
    _check_model_keys(params.model, path)
    for name in ModelRegistry.list_models():
        of_blocks = {int(key[1:]) for key in params.model.get(name) or {} if _HORIZON_BLOCK.fullmatch(key)}
        for horizon in sorted({*params.horizons, *of_blocks}):
            _check_lookback(params, resolve_model(params, name, horizon, path), path)
    _check_ensemble(params, path)
    return params


def _check_moved(content: Mapping[str, Any], file: Path) -> None:
    """Keys of earlier versions, each with what took its place."""
    for key, instead in _MOVED.items():
        section, name = key.split(".")
        if isinstance(content.get(section), dict) and name in content[section]:
            raise ConfigError(f"{file}: unknown key '{key}'; {instead}")


def _check_lookback(params: Params, config: ModelConfig, file: Path) -> None:
    bars = getattr(config, "lookback", None)
    if bars is not None and bars > params.window.seq_len:
        raise ConfigError(
            f"{file}: model.{config.model_name}.lookback = {bars}: expected at most window.seq_len = "
            f"{params.window.seq_len}"
        )


def _check_horizons(params: Params, file: Path) -> None:
    strange = [horizon for horizon in params.tune.horizons if params.tune.models and horizon not in params.horizons]
    if strange:
        raise ConfigError(
            f"{file}: tune.horizons = {params.tune.horizons}: expected some of horizons = {params.horizons}; "
            f"set tune.horizons too, or tune.models to []"
        )


def _check_ensemble(params: Params, file: Path) -> None:
    """Weights that are given must be of models and horizons of the matrix."""
    for horizon, weights in params.ensemble.weights.items():
        key, known = f"ensemble.weights.{horizon}", [f"h{n}" for n in params.horizons]
        if horizon not in known:
            raise ConfigError(unknown_key(str(file), key, horizon, known))
        for name in weights:
            if name not in params.ensemble_members():
                raise ConfigError(unknown_key(str(file), f"{key}.{name}", name, params.ensemble_members()))


def _check_names(names: Sequence[str], key: str, path: Path) -> None:
    for position, name in enumerate(names):
        try:
            ModelRegistry.get_metadata(name)
        except ModelError as error:
            raise ConfigError(f"{path}: {key}[{position}]: {error}") from None


def resolve_model(params: Params, name: str, horizon: int, file: Path) -> ModelConfig:
    """The hyperparameters of one cell: shared values, over them the model's block, over it its `h{n}` block.

    A null says nothing: what is in the layer below holds. Only where no layer has more than a null, and the key admits
    one, is it the value.

    Raises:
        ConfigError: a value is missing, of the wrong type or out of range; names the key that set it.
    """
    metadata = ModelRegistry.get_metadata(name)
    config_class = metadata.model_class.config_class
    block = params.model.get(name) or {}
    layers = (("model", params.model), (f"model.{name}", block), (f"model.{name}.h{horizon}", _of(block, horizon)))
    values: dict[str, Any] = {
        "model_name": name,
        "model_family": metadata.family,
        "horizon": horizon,
        "random_seed": params.seed,
    }
    keys: dict[str, str] = {}
    for field, info in config_class.model_fields.items():
        for prefix, layer in layers:
            if layer.get(field) is not None and field not in _GIVEN:
                values[field], keys[field] = layer[field], f"{prefix}.{field}"
        if field not in values and field in params.model and NoneType in typing.get_args(info.annotation):
            values[field] = None
    return validate(config_class, values, file, f"model.{name}", keys)


def _of(block: Mapping[str, Any], horizon: int) -> Mapping[str, Any]:
    return block.get(f"h{horizon}") or {}


def _check_model_keys(model: Mapping[str, Any], file: Path) -> None:
    """Every key of `model:` must be one that some model reads, and every key of a block one that its model reads."""
    fields = {name: _fields(name) for name in ModelRegistry.list_models()}
    shared = set().union(*fields.values())
    for key, value in model.items():
        if key not in fields:
            if key not in shared:
                raise ConfigError(unknown_key(str(file), f"model.{key}", key, shared | set(fields)))
            continue
        _check_block(value, f"model.{key}", fields[key], file)
        for inner, block in (value or {}).items():
            if _HORIZON_BLOCK.fullmatch(str(inner)):
                _check_block(block, f"model.{key}.{inner}", fields[key], file, nested=False)


def _check_block(block: Any, prefix: str, fields: set[str], file: Path, nested: bool = True) -> None:
    if block is not None and not isinstance(block, dict):
        raise ConfigError(f"{file}: {prefix} = {block!r}: expected a block of keys")
    for key in block or {}:
        if key not in fields and not (nested and _HORIZON_BLOCK.fullmatch(str(key))):
            known = fields | {f"h{key}"} if nested and isinstance(key, int) else fields
            raise ConfigError(unknown_key(str(file), f"{prefix}.{key}", f"{key}", known))


def _fields(name: str) -> set[str]:
    return set(ModelRegistry.get_metadata(name).model_class.config_class.model_fields) - _GIVEN
