"""One small file per stage and cell with all that can change its result. A stage depends on its own file only.

So a changed parameter, module or library runs exactly those stages again whose file it changes. `STAGES` is the table
of what each stage's file holds.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barcast.cache.fingerprint import Fingerprinter, mismatched_pins
from barcast.errors import ConfigError
from barcast.files import atomic_dir, atomic_file
from barcast.models.registry import ModelRegistry
from barcast.params import Params, load_params, resolve_model
from barcast.paths import Paths, cell_name
from barcast.tuning.fold_scores import FoldScoring
from barcast.tuning.search_space import check_space, parse_space, space_file
from barcast.yaml_io import dump_yaml, load_yaml

# What the pipeline calls its folders. Folders with other names are the user's.
_CELL, _HORIZON, _SEED = re.compile(r"\w+_h\d+"), re.compile(r"h\d+"), re.compile(r"s\d+")


@dataclass(frozen=True)
class Place:
    """What one file is for: a stage, or a stage at one horizon, or one cell."""

    params: Params
    paths: Paths
    model: str | None = None
    horizon: int = 0

    @property
    def cell(self) -> str:
        return cell_name(str(self.model), self.horizon)

    @cached_property
    def plain(self) -> dict[str, Any]:
        """All of params.yaml as plain data."""
        return self.params.model_dump(mode="json")

    def base(self) -> dict[str, Any]:
        """The cell's hyperparameters."""
        config = resolve_model(self.params, str(self.model), self.horizon, self.paths.params)
        return config.model_dump(mode="json")


@dataclass(frozen=True)
class StageSpec:
    """A row of `STAGES`.

    Args:
        file: the name of the file; `{cell}` and `{horizon}` are filled in.
        config: the settings that the stage reads.
        roots: the modules that compute what it writes; with all that they import, they are its code. The module of a
            cell's model is added.
        over: whether there is one file, or one for each horizon, cell or tuned cell.
        format: raised by one when the form of what the stage writes changes, and no module of `roots` does.
        trials: modules on which each trial of a study depends, of all those in `roots`.
    """

    file: str
    config: Callable[[Place], Mapping[str, Any]]
    roots: tuple[str, ...]
    over: Callable[[Params], Iterable[tuple[str | None, int]]] = lambda params: [(None, 0)]
    format: int = 1
    trials: tuple[str, ...] = ()


def _prepare(place: Place) -> dict[str, Any]:
    data = {key: value for key, value in place.plain["data"].items() if key != "audit"}
    label = {key: value for key, value in place.plain["label"].items() if key != "weights"}
    return {**_keys(place, "symbols", "horizons"), "data": data, "label": label, "split": place.plain["split"]}


def _keys(place: Place, *keys: str) -> dict[str, Any]:
    return {key: place.plain[key] for key in keys}


def _audit(place: Place) -> dict[str, Any]:
    return {**_prepare(place), **_keys(place, "seed", "data", "window")}


def _window(place: Place) -> dict[str, Any]:
    weights = place.plain["label"]["weights"]
    return {"horizons": place.params.horizons, "weights": weights, "window": place.plain["window"]}


def _scoring(place: Place) -> dict[str, Any]:
    """How cells are scored. Seeds and `out_of_fold` are not part of it: longer lists evaluate no cell again."""
    evaluate = {key: value for key, value in place.plain["evaluate"].items() if key not in ("seeds", "out_of_fold")}
    return {**evaluate, "purge_bars": place.params.split.purge_bars}


def _scaler(params: Params) -> dict[str, Any]:
    """How the splits were scaled; the clip of splits that were scaled elsewhere is not known."""
    scaler = params.data.scaler
    return {"kind": scaler.kind, "clip": scaler.clip if params.data.from_bars else None}


def _oof(place: Place) -> dict[str, Any]:
    chosen = place.params.evaluate.out_of_fold
    base = place.base() if chosen == "all" or place.model in chosen else None
    return {"base": base, "folds": place.plain["tune"]["folds"], "scaler": _scaler(place.params)}


def _tune(place: Place) -> dict[str, Any]:
    model, base = str(place.model), place.base()
    space = parse_space(load_yaml(file := space_file(place.paths.root, model)), model, file)
    if not space.entries:
        raise ConfigError(f"{file}: {model} has nothing to tune; remove it from tune.models or give it a search space")
    check_space(space, base, model, file)
    return {
        "seed": place.params.seed,
        "base": base,
        "space": space.to_dict(),
        "study": place.params.tune.study().model_dump(mode="json"),
        "scoring": {key: place.plain["evaluate"][key] for key in FoldScoring.model_fields},
        "scaler": _scaler(place.params),
    }


def _ensemble(place: Place) -> dict[str, Any]:
    ensemble = place.params.ensemble
    return {
        **_scoring(place),
        "members": place.params.ensemble_members(),
        "weights": ensemble.weights.get(f"h{place.horizon}"),
        "shrink": ensemble.shrink,
    }


def _compare(place: Place) -> dict[str, Any]:
    params, plain = place.params, place.plain
    return {
        "cells": [{"model": model, "horizon": horizon} for model, horizon in params.cells()],
        **plain["compare"],
        **{key: plain["evaluate"][key] for key in ("seeds", "cost_bps", "calibration_bins")},
        "label_end_offset": {f"h{horizon}": params.label_end_offset(horizon) for horizon in params.horizons},
        "seed": plain["seed"],
    }


STAGES = {
    "prepare": StageSpec("prepare", _prepare, ("barcast.data.preparation",)),
    "audit": StageSpec("audit", _audit, ("barcast.audit.checks",)),
    "window": StageSpec("window", _window, ("barcast.data.window_files",)),
    "train": StageSpec("{cell}", Place.base, ("barcast.training.trainer",), Params.cells),
    "baseline": StageSpec("baseline", _scoring, ("barcast.evaluation.baseline",)),
    "evaluate": StageSpec(
        "evaluate",
        _scoring,
        (
            "barcast.evaluation.attribution",
            "barcast.evaluation.evaluator",
            "barcast.evaluation.plots",
        ),
    ),
    "repeat": StageSpec("repeat", _scoring, ("barcast.evaluation.evaluator",)),
    "tune": StageSpec(
        "tune_{cell}",
        _tune,
        ("barcast.tuning.trial", "barcast.tuning.fold_scaler", "barcast.tuning.study_summary"),
        Params.tuned_cells,
        trials=("barcast.tuning.trial", "barcast.tuning.fold_scaler"),
    ),
    "oof": StageSpec("oof_{cell}", _oof, ("barcast.tuning.out_of_fold",), Params.cells),
    "ensemble": StageSpec(
        "ensembles_h{horizon}",
        _ensemble,
        ("barcast.evaluation.ensemble", "barcast.evaluation.plots"),
        lambda params: ((None, horizon) for horizon in params.horizons),
    ),
    "compare": StageSpec(
        "compare",
        _compare,
        (
            "barcast.comparison.results",
            "barcast.report.cell_page",
            "barcast.report.data_page",
            "barcast.report.page",
            "barcast.report.tables",
        ),
    ),
}


def write_specs(paths: Paths, fingerprinter: Fingerprinter | None = None) -> None:
    """Write `experiments/specs/` and `experiments/machine.yaml`, and remove the results of cells that left the matrix.

    Raises:
        ConfigError: anything in params.yaml or a search space is unknown, missing, of the wrong type or out of range;
            or a library that a result depends on is installed in another version than the one that is pinned.
    """
    params, lock = load_params(paths.params), paths.root / "requirements.lock"
    specs = dict(build_specs(params, paths, fingerprinter or Fingerprinter()))
    libraries = {name for content in specs.values() for name in content["libraries"]}
    # a spec lists what is installed, and is written again when the lock file changes: so the two must agree
    if wrong := mismatched_pins(lock, libraries) if lock.is_file() else []:
        remedy = f"run `pip install --no-deps -r {lock.name}`, or pin what is installed"
        raise ConfigError(f"{lock.name}: {', '.join(wrong)}; {remedy}")
    machine = {}  # the fields that each cell's model leaves out of what it writes
    for model, horizon in params.cells():
        config = resolve_model(params, model, horizon, paths.params)
        left_out = [name for name, field in type(config).model_fields.items() if field.exclude]
        machine[cell_name(model, horizon)] = {name: getattr(config, name) for name in left_out}
    with atomic_dir(paths.specs) as folder:
        for name, content in specs.items():
            (folder / f"{name}.yaml").write_text(dump_yaml(content), encoding="utf-8")
    with atomic_file(paths.machine) as file:
        file.write_text(dump_yaml(machine), encoding="utf-8")
    paths.tune.mkdir(parents=True, exist_ok=True)  # `compare` reads it, also where nothing is tuned
    for gone in prune_runs(paths, params):
        print(f"{gone}: no longer in the matrix, removed (DVC's cache still has it)")
    print(f"{len(list(params.cells()))} cells: {len(params.models)} models × {len(params.horizons)} horizons")


def build_specs(params: Params, paths: Paths, fingerprinter: Fingerprinter) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each file; raises as `write_specs` does."""
    for stage, row in STAGES.items():
        for model, horizon in row.over(params):
            place = Place(params, paths, model, horizon)
            own = () if model is None else (ModelRegistry.get_metadata(model).module,)
            code = fingerprinter.fingerprint(*row.roots, *own)
            where: dict[str, Any] = {} if model is None else {"cell": place.cell, "model": model}
            if horizon:
                where["horizon"] = horizon
            if row.trials:
                where["trials"] = fingerprinter.fingerprint(*row.trials, *own).digest
            content = {"stage": stage, "format": row.format, **where, "config": dict(row.config(place))}
            yield row.file.format(cell=place.cell, horizon=horizon), {**content, **asdict(code)}


def prune_runs(paths: Paths, params: Params) -> list[Path]:
    """Remove the folders of cells, repeats, studies, baselines and ensembles that params.yaml no longer has: `compare`
    depends on the folders that hold them all. Folders with another form of name stay."""
    keep, tuned = {cell_name(*cell) for cell in params.cells()}, {cell_name(*cell) for cell in params.tuned_cells()}
    horizons, seeds = {f"h{horizon}" for horizon in params.horizons}, {f"s{seed}" for seed in params.evaluate.seeds}
    gone = [
        *_others(paths.runs, _CELL, keep),
        *(repeat for cell in sorted(keep) for repeat in _others(paths.run(cell) / "repeats", _SEED, seeds)),
        *_others(paths.tune, _CELL, tuned),
        *_others(paths.oof, _CELL, keep),
        *_others(paths.baselines, _HORIZON, horizons),
        *_others(paths.ensembles, _HORIZON, horizons),
    ]
    for folder in gone:
        shutil.rmtree(folder)
    return gone


def _others(parent: Path, form: re.Pattern[str], known: set[str]) -> list[Path]:
    """The folders of `parent` that have such a name and are not among the known."""
    found = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    return [folder for folder in found if form.fullmatch(folder.name) and folder.name not in known]
