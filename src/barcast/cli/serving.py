"""Commands for champions: promote, roll back, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli._app import app
from barcast.errors import ConfigError, ModelError
from barcast.paths import Paths, find_root

if TYPE_CHECKING:
    from barcast.serving.promotion import Promotion

Horizon = Annotated[int, typer.Option(help="Bars ahead, one of `horizons` in params.yaml.")]


@app.command()
def promote(
    horizon: Horizon,
    model: Annotated[str | None, typer.Option(help="Default: the model that ranks first.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote in spite of failed gates; recorded.")] = False,
) -> None:
    """Make a cell the champion of its horizon, if it passes every gate."""
    from barcast.serving.promotion import promote as run
    from barcast.serving.registry_folder import next_tag

    paths = Paths(find_root())
    done = run(paths, horizon, model, force, print)
    if not done.changed:
        print(f"{done.cell} is the champion already: {_champion_name(done, horizon)}; nothing was changed")
        return
    _report(done, horizon, "is champion")
    print(
        "to share it: git add experiments/registry && git commit -m 'Promote "
        f"{done.cell}' && git tag -a -m {done.cell} {next_tag(paths, horizon)} && dvc push && git push --follow-tags"
    )


@app.command()
def rollback(horizon: Horizon) -> None:
    """Swap the champion of a horizon and the previous one; a second time swaps them back."""
    from barcast.serving.promotion import rollback as run

    _report(run(Paths(find_root()), horizon, print), horizon, "is champion again")


@app.command()
def predict(
    bars: Annotated[Path, typer.Argument(help="Parquet or CSV, or a folder with one file per symbol.")],
    out: Annotated[Path, typer.Option(help="The .parquet or .csv file to write.")],
    horizon: Annotated[int | None, typer.Option(help="Default: the only horizon that has a champion.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A model folder from elsewhere (`dvc artifacts get`).")] = None,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Bars in memory at a time.")] = 50_000,
) -> None:
    """Predict for every bar of a file, which may be larger than memory, with the champion."""
    from barcast.serving.bundle import is_own_code
    from barcast.serving.predictor import Predictor
    from barcast.serving.stream_predictor import predict_file

    folder = bundle or _champion_folder(horizon)
    predictor = Predictor(folder)
    if not is_own_code(predictor.config):
        raise ModelError(
            f"{folder}: promoted with other code for features, windows or {predictor.config.model} than this, so "
            "predictions could differ; check out the revision in its metadata.json, promote again, or serve it with "
            "MLflow, whose copy contains the code"
        )
    for symbol, count in sorted(predict_file(predictor, bars, out, chunk_rows).items()):
        print(f"{symbol}: {count:,} predictions")
    print(f"{predictor.config.model}_h{predictor.config.horizon}: {out}")


def _report(done: Promotion, horizon: int, outcome: str) -> None:
    previous = done.versions.get("previous")
    before = f"version {previous}" if previous else done.previous
    print(f"{_champion_name(done, horizon)} {outcome}: {done.cell}" + (f", {before} is previous" if before else ""))


def _champion_name(done: Promotion, horizon: int) -> str:
    """`barcast-h5 version 2`."""
    version = done.versions.get("champion")
    return f"barcast-h{horizon} " + (f"version {version}" if version else "(not in MLflow yet)")


def _champion_folder(horizon: int | None) -> Path:
    paths = Paths(find_root())
    if horizon is not None:
        return paths.registry(horizon) / "model"
    folders = sorted(paths.registries.glob("h*/model"))
    if len(folders) != 1:
        names = ", ".join(folder.parent.name for folder in folders) or "none"
        raise ConfigError(f"--horizon: champions: {names}; choose one, or make one with `barcast promote --horizon 5`")
    return folders[0]
