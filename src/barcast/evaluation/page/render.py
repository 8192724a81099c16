"""The report page: one HTML file with everything inside, for any screen, light, dark or on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from barcast.evaluation._numbers import number
from barcast.evaluation.page._vega import COLOURS, CONFIG
from barcast.evaluation.page.board import Board, table_columns
from barcast.evaluation.page.content import CellPage
from barcast.evaluation.page.data import DataPage
from barcast.evaluation.page.data_figures import data_specs
from barcast.evaluation.page.figures import specs
from barcast.evaluation.page.provenance import Provenance

TEMPLATES = Path(__file__).parents[1] / "templates"
REFERENCE = "reference"


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    boards: Sequence[Board]  # one a horizon
    cells: Mapping[str, CellPage]
    data: DataPage
    provenance: Provenance
    reference: str
    level: float  # of every interval
    trials: Mapping[str, Any]  # what overfitting.json counts
    models: Sequence[str]  # their order decides which colour a model gets


def render(page: Page) -> str:
    """The whole page as HTML.

    Raises:
        UndefinedError: a template asks for what the page does not hold.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    styles = model_styles(page.models, page.reference)
    figures = {**specs({m: f"var(--{s.colour})" for m, s in styles.items()}, _dashed(styles)), **data_specs()}
    return environment.get_template("report.html.j2").render(
        page=page,
        columns=table_columns(page.reference),
        number=number,
        styles=styles,
        legends={board.name: _legend(board, styles) for board in page.boards},
        script=Markup(_libraries()),
        figures=_json({"config": CONFIG, "specs": figures}),
        blocks={name: _json(block) for name, block in _blocks(page).items()},
    )


@dataclass(frozen=True)
class Style:
    """How one model looks in every figure: the name of its colour, and whether another model has it, too."""

    colour: str
    dashed: bool

    @property
    def classes(self) -> str:
        return f"{self.colour} dashed" if self.dashed else self.colour


def model_styles(models: Sequence[str], reference: str) -> dict[str, Style]:
    """A colour for each model; the reference is grey."""
    coloured = [model for model in models if model != reference]
    styles = {model: Style(f"s{i % COLOURS}", i >= COLOURS) for i, model in enumerate(coloured)}
    return {model: styles.get(model, Style(REFERENCE, True)) for model in models}


def _legend(board: Board, styles: Mapping[str, Style]) -> list[tuple[str, str]]:
    """(classes of the swatch, name) of every line of the figure over all models."""
    return [*((styles[row["model"]].classes, row["model"]) for row in board.rows), ("hold dashed", "buy and hold")]


def _dashed(styles: Mapping[str, Style]) -> frozenset[str]:
    return frozenset(model for model, style in styles.items() if style.dashed)


def _blocks(page: Page) -> dict[str, dict[str, Any]]:
    """Figures' columns, one block for each part of the page that is read as a whole."""
    blocks: dict[str, dict[str, Any]] = {board.name: dict(board.figures) for board in page.boards}
    blocks |= {name: dict(cell.figures) for name, cell in page.cells.items()}
    return {**blocks, "data": dict(page.data.figures)}


def _json(content: Any) -> Markup:
    """JSON that can stand inside a script element."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


@cache
def _libraries() -> str:
    """Vega and Vega-Lite as one script, from the installed package: nothing is downloaded."""
    import vl_convert

    # a snippet of one's own would make it drop parts that are needed; its stub says that there must be one
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")
