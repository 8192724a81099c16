"""The report page: one self-contained HTML file for any screen, light, dark or on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from barcast.report.cell_page import CellPage
from barcast.report.columns import number
from barcast.report.data_page import DataPage, Provenance
from barcast.report.figures import COLOURS, CONFIG, specs
from barcast.report.leaderboard_table import LeaderboardTable, table_columns

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    tables: Sequence[LeaderboardTable]  # one per horizon
    cells: Mapping[str, CellPage]
    data: DataPage
    provenance: Provenance
    reference: str
    level: float  # of every interval
    trials: Mapping[str, Any]  # of overfitting.json
    models: Sequence[str]  # their order decides which colour a model gets


def render(page: Page) -> str:
    """The whole page as HTML; UndefinedError if a template needs what the page does not have."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment = environment.overlay(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    styles = model_styles(page.models, page.reference)
    colours = {model: f"var(--{style.split()[0]})" for model, style in styles.items()}
    dashed = frozenset(model for model, style in styles.items() if "dashed" in style)
    blocks = {table.name: table.figures for table in page.tables}
    blocks |= {name: cell.figures for name, cell in page.cells.items()} | {"data": page.data.figures}
    return environment.get_template("report.html.j2").render(
        page=page,
        columns=table_columns(page.reference),
        number=number,
        styles=styles,
        legends={table.name: [(styles[row["model"]], row["model"]) for row in table.rows] for table in page.tables},
        script=Markup(_libraries()),
        specs=_json({"config": CONFIG, "specs": specs(colours, dashed)}),
        blocks={name: _json({f: fig.columns for f, fig in figures.items()}) for name, figures in blocks.items()},
    )


def model_styles(models: Sequence[str], reference: str) -> dict[str, str]:
    """The CSS classes of each model: its colour, and "dashed" if another model has that colour, too."""
    coloured = [model for model in models if model != reference]
    styles = {model: f"s{i % COLOURS}" + (" dashed" if i >= COLOURS else "") for i, model in enumerate(coloured)}
    return {model: styles.get(model, "reference dashed") for model in models}


def _json(content: Any) -> Markup:
    """JSON that can stand inside a script element."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


@cache
def _libraries() -> str:
    """Vega and the Vega-Lite that altair writes for, as one script from the installed package."""
    import altair
    import vl_convert

    version = altair.SCHEMA_VERSION.rpartition(".")[0]  # v6.4.1 -> v6.4
    # with a snippet it would drop parts that are needed; its stub wrongly requires one
    bundle: str = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")
