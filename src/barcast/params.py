"""The whole of `params.yaml`: every section's schema put together, and each cell's hyperparameters resolved."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from barcast.audit.checks import AuditedDataConfig
from barcast.comparison.horizon import SignificanceConfig
from barcast.config import listed_once, unknown_key, validate
from barcast.data.labels import LabelSection
from barcast.data.splits import SplitConfig
from barcast.data.window_ends import WindowConfig
from barcast.errors import ConfigError, ModelError
from barcast.evaluation.ensemble import EnsembleSection
from barcast.evaluation.evaluator import EvaluateSection
from barcast.models.base import ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.section import Section
from barcast.tuning.settings import TuneConfig
from barcast.yaml_io import load_yaml

_HORIZON_BLOCK = re.compile(r"h\d+")
_MOVED = {
    "window.train_stride": "it is 'model.train_stride' now, of each model",
    "ensemble.stack": "the stack is gone; 'evaluate.out_of_fold' lists the models that are fitted out of fold",
}
_GIVEN = {"model_name", "model_family", "horizon", "random_seed"}  # filled in, not set by the user


class CompareSection(SignificanceConfig):
    """`compare:` of params.yaml."""

    reference: str


class PromoteConfig(Section):
    """`promote:` of params.yaml."""

    max_ece: Annotated[float, Field(gt=0, le=1)]
    max_request_rows: Annotated[int, Field(ge=1)]


class Params(Section):
    """All of params.yaml. `model` stays plain here; `resolve_model` gives each cell its own."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    symbols: Annotated[list[str], Field(min_length=1), AfterValidator(listed_once)]
    horizons: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(listed_once)]
    models: Annotated[list[str], Field(min_length=1), AfterValidator(listed_once)]
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
        longest = self.label.longest_label_end_offset()
        if self.data.from_bars and self.split.purge_bars < longest:
            raise ValueError(f"split.purge_bars ≥ {longest}, the longest label end offset, got {self.split.purge_bars}")
        return self

    @model_validator(mode="after")
    def _seeds_differ(self) -> Params:
        seeds = self.evaluate.seeds
        if len({self.seed, *seeds}) < 1 + len(seeds):
            raise ValueError(f"evaluate.seeds that differ from each other and from seed {self.seed}, got {seeds}")
        return self

    def label_end_offset(self, horizon: int) -> int:
        """How many bars ahead a label looks; of labels made elsewhere at least the horizon's own length, and `compare`
        finds in the windows how much further."""
        if not self.data.from_bars:
            return horizon
        return max(self.label.barriers(symbol, horizon).max_bars for symbol in self.symbols)

    def tuned_cells(self) -> Iterator[tuple[str, int]]:
        """Every (model, horizon) that is tuned."""
        return itertools.product(self.tune.models, self.tune.horizons)

    def ensemble_members(self) -> list[str]:
        """The models of the matrix that an ensemble is made of: baselines have nothing to add."""
        others = [name for name in self.models if ModelRegistry.get_metadata(name).family != "baseline"]
        return others or list(self.models)

    def cells(self) -> Iterator[tuple[str, int]]:
        """Every (model, horizon) of the matrix, in the order of `models` and `horizons`."""
        return itertools.product(self.models, self.horizons)


def load_params(path: Path) -> Params:
    """Read and check params.yaml, every model's block included, also of models outside the matrix.
    Raises ConfigError: naming file, key, value, what is allowed, and the closest known key."""
    return check_params(load_yaml(path), path)


def check_params(content: Mapping[str, Any], file: str | Path) -> Params:
    """Check the content of params.yaml as a whole; `file` is its name in errors. Raises as `load_params` does."""
    for key, instead in _MOVED.items():
        section, name = key.split(".")
        if isinstance(content.get(section), dict) and name in content[section]:
            raise ConfigError(f"{file}: unknown key '{key}'; {instead}")
    params = validate(Params, content, file)
    out_of_fold = params.evaluate.out_of_fold
    for key, names in (
        ("models", params.models),
        ("tune.models", params.tune.models),
        ("evaluate.out_of_fold", [] if out_of_fold == "all" else out_of_fold),
    ):
        for position, name in enumerate(names):
            try:
                ModelRegistry.get_metadata(name)
            except ModelError as error:
                raise ConfigError(f"{file}: {key}[{position}]: {error}") from None
    if params.data.from_bars:
        params.label.check(params.symbols, params.horizons)
    if params.tune.models and not set(params.tune.horizons) <= set(params.horizons):
        raise ConfigError(
            f"{file}: tune.horizons = {params.tune.horizons}: expected some of horizons = {params.horizons}; "
            f"set tune.horizons too, or tune.models to []"
        )
    _check_model_keys(params.model, file)
    for name in ModelRegistry.list_models():
        of_blocks = {int(key[1:]) for key in params.model.get(name) or {} if _HORIZON_BLOCK.fullmatch(key)}
        for bars_ahead in sorted({*params.horizons, *of_blocks}):
            bars = getattr(resolve_model(params, name, bars_ahead, file), "lookback", None)
            if bars is not None and bars > params.window.seq_len:
                most = f"expected at most window.seq_len = {params.window.seq_len}"
                raise ConfigError(f"{file}: model.{name}.lookback = {bars}: {most}")
    known, members = [f"h{horizon}" for horizon in params.horizons], params.ensemble_members()
    for horizon, weights in params.ensemble.weights.items():
        if horizon not in known:
            raise ConfigError(unknown_key(str(file), f"ensemble.weights.{horizon}", horizon, known))
        if others := [name for name in weights if name not in members]:
            key = f"ensemble.weights.{horizon}.{others[0]}"
            raise ConfigError(unknown_key(str(file), key, others[0], members))
    return params


def resolve_model(params: Params, name: str, horizon: int, file: str | Path) -> ModelConfig:
    """The hyperparameters of one cell: shared values, over them the model's block, over it its `h{n}` block.

    A null sets nothing: the value of the layer below holds. It is the value only where no layer has another one and the
    key admits it.

    Raises:
        ConfigError: a value is missing, of the wrong type or out of range; names the key that set it.
    """
    metadata = ModelRegistry.get_metadata(name)
    config_class = metadata.model_class.config_class
    block = params.model.get(name) or {}
    own = block.get(f"h{horizon}") or {}
    layers = (("model", params.model), (f"model.{name}", block), (f"model.{name}.h{horizon}", own))
    values: dict[str, Any] = {"model_name": name, "model_family": metadata.family}
    values |= {"horizon": horizon, "random_seed": params.seed}
    keys: dict[str, str] = {}
    for field, info in config_class.model_fields.items():
        for prefix, layer in layers:
            if layer.get(field) is not None and field not in _GIVEN:
                values[field], keys[field] = layer[field], f"{prefix}.{field}"
        if field not in values and field in params.model and NoneType in typing.get_args(info.annotation):
            values[field] = None
    return validate(config_class, values, file, f"model.{name}", keys)


def _check_model_keys(model: Mapping[str, Any], file: str | Path) -> None:
    """Every key of `model:` must be one that some model reads, and every key of a block one that its model reads."""
    classes = {name: ModelRegistry.get_metadata(name).model_class.config_class for name in ModelRegistry.list_models()}
    fields = {name: set(config_class.model_fields) - _GIVEN for name, config_class in classes.items()}
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


def _check_block(block: Any, prefix: str, fields: set[str], file: str | Path, nested: bool = True) -> None:
    if block is not None and not isinstance(block, dict):
        raise ConfigError(f"{file}: {prefix} = {block!r}: expected a block of keys")
    for key in block or {}:
        if key not in fields and not (nested and _HORIZON_BLOCK.fullmatch(str(key))):
            known = fields | {f"h{key}"} if nested and isinstance(key, int) else fields
            raise ConfigError(unknown_key(str(file), f"{prefix}.{key}", f"{key}", known))
