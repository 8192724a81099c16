"""Asking a trained cell what its answers depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from barcast.cli._app import app, require_cell
from barcast.errors import DataError
from barcast.paths import Paths, cell_name, find_root

if TYPE_CHECKING:
    import pandas as pd


@app.command()
def importance(
    model: Annotated[str, typer.Argument(help="A model of the matrix.")],
    horizon: Annotated[int, typer.Option(help="Bars ahead.")],
    windows: Annotated[int, typer.Option(min=2, help="Validation windows that are asked.")] = 256,
    top: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 15,
) -> None:
    """Permutation importance of a trained cell on validation, by feature and by lag; of a TFT its attention too."""
    from barcast.data.windows import DatasetConfig, TimeSeriesDataset
    from barcast.evaluation.importance import lag_importance, permutation_importance
    from barcast.models.registry import ModelRegistry
    from barcast.params import load_params

    paths = Paths(find_root())
    metadata = ModelRegistry.get_metadata(model)
    checkpoint = paths.checkpoint(cell_name(model, horizon))
    if not (checkpoint / "model.json").is_file():
        if paths.params.is_file():  # what is trained can be asked without it
            require_cell(load_params(paths.params), model, horizon)
        raise DataError(f"{checkpoint}: no trained model; run `dvc repro train@{model}-{horizon}` first")
    trained = metadata.model_class.load(checkpoint)
    val = TimeSeriesDataset(DatasetConfig(path=str(paths.windows), horizon=horizon)).split("val")
    asked = (trained, val.X, val.y, windows, trained.config.random_seed)
    by_feature, by_lag = permutation_importance(*asked), lag_importance(*asked)
    _show("features", by_feature[["feature", "importance"]].head(top))
    _show("bars (lag 0: the last)", by_lag.head(top))
    if hasattr(trained, "get_attention"):
        attention = trained.get_attention().sort_values("attention", ascending=False)
        _show("attention by bar", attention.head(top))


def _show(title: str, table: pd.DataFrame) -> None:
    shown = Table(*table.columns, title=title, title_justify="left")
    for key, share in table.itertuples(index=False):
        shown.add_row(str(key).replace("<NA>", "itself"), f"{share:.1%}")
    Console().print(shown)
