"""Commands around the champion: promote it, roll it back, ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from barcast.cli._app import app
from barcast.errors import ConfigError, ModelError
from barcast.paths import Paths, find_root

Horizon = Annotated[int, typer.Option(help="Bars ahead, one of `horizons` in params.yaml.")]


@app.command()
def promote(
    horizon: Horizon,
    model: Annotated[str | None, typer.Option(help="Default: the one that ranks first.")] = None,
    force: Annotated[bool, typer.Option("--force", help="In spite of failed gates; recorded.")] = False,
) -> None:
    """Make a cell the champion of its horizon, if it passes every gate."""
    from barcast.serving.committed import next_tag
    from barcast.serving.registry import promote as run
    from barcast.serving.versions import registered_name

    paths = Paths(find_root())
    done = run(paths, horizon, model, force, print)
    name = registered_name(horizon)
    if not done.changed:
        print(f"{done.cell} is the champion already: {name} version {done.version}; nothing was changed")
        return
    before = f", version {done.previous} is previous" if done.previous else ""
    print(f"{name} version {done.version} is champion: {done.cell}{before}")
    print(
        "to share it: git add experiments/registry && git commit -m 'Promote "
        f"{done.cell}' && git tag -a -m {done.cell} {next_tag(paths, horizon)} && dvc push && git push --follow-tags"
    )


@app.command()
def rollback(horizon: Horizon) -> None:
    """Swap the champion of a horizon with the previous one; a second time swaps them back."""
    from barcast.serving.registry import rollback as run
    from barcast.serving.versions import registered_name

    done = run(Paths(find_root()), horizon, print)
    name = registered_name(horizon)
    print(f"{name} version {done.version} is champion again: {done.cell}; version {done.previous} is previous")


@app.command()
def predict(
    bars: Annotated[Path, typer.Argument(help="Parquet or CSV, or a folder with one file a symbol.")],
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file to write.")],
    horizon: Annotated[int | None, typer.Option(help="Default: the one horizon that has a champion.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A model folder from elsewhere (`dvc artifacts get`).")] = None,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Bars held in memory at a time.")] = 50_000,
) -> None:
    """Let the champion answer every bar of a file, which may be larger than memory."""
    from barcast.serving.bundle import is_own_code
    from barcast.serving.predictor import Predictor
    from barcast.serving.stream import predict_file

    folder = bundle or _champion(horizon)
    predictor = Predictor(folder)
    if not is_own_code(predictor.config):
        raise ModelError(
            f"{folder}: promoted with other code for features, windows or {predictor.config.model} than this, so its "
            "answers could differ; check out the revision that its metadata.json names, promote again, or serve it "
            "with MLflow, which keeps the code beside the model"
        )
    for symbol, count in sorted(predict_file(predictor, bars, out, chunk_rows).items()):
        print(f"{symbol}: {count:,} answers")
    print(f"{predictor.config.model}_h{predictor.config.horizon}: {out}")


def _champion(horizon: int | None) -> Path:
    paths = Paths(find_root())
    if horizon is not None:
        return paths.registry(horizon) / "model"
    folders = sorted((paths.root / "experiments/registry").glob("h*/model"))
    if len(folders) != 1:
        said = ", ".join(folder.parent.name for folder in folders) or "none"
        raise ConfigError(
            f"--horizon: champions of {said}; say which horizon, or `barcast promote --horizon 5` to make one"
        )
    return folders[0]
