from __future__ import annotations

import dataclasses
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from _cells import register_stubs, train_prior, train_stub, write_windows
from barcast.config import dump_yaml, validate
from barcast.errors import ConfigError, DataError
from barcast.evaluation._charts import Line, nice_values, step_chart, time_chart
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.evaluation.leaderboard import (
    CellResult,
    Leaderboard,
    load_leaderboard,
    rank_cells,
    render_markdown,
    render_terminal,
)
from barcast.files import read_json
from barcast.paths import Paths
from barcast.stages import compare as stage
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.evaluate import evaluate

MODELS = ("prior", "sharp", "blunt", "contrary")
CONFIG = {"cells": [{"model": m, "horizon": h} for m in MODELS for h in (5, 20)], "reference": "prior"}


def config(**changes) -> CompareConfig:
    return validate(CompareConfig, CONFIG | changes, "compare.yaml", "config")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Eight evaluated cells, made once; tests that change files work on a copy."""
    paths = Paths(tmp_path_factory.mktemp("cells"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        register_stubs(monkeypatch, "sharp", "blunt", "contrary")
        write_windows(paths, bars=120, horizons=(5, 20))
        for horizon in (5, 20):
            train_prior(paths, horizon)
            for name, sharpness in (("sharp", 1.5), ("blunt", 0.3), ("contrary", -1.0)):
                train_stub(paths, name, horizon, sharpness)
            for name in MODELS:
                evaluate(name, horizon, EvaluateConfig(cost_bps=1.0, calibration_bins=10), paths)
    return paths


@pytest.fixture
def paths(evaluated, tmp_path) -> Paths:
    shutil.copytree(evaluated.root, tmp_path, dirs_exist_ok=True)
    return Paths(tmp_path)


def outputs(paths: Paths) -> dict[str, bytes]:
    files = [*paths.report.rglob("*"), paths.metrics]
    return {str(path.relative_to(paths.root)): path.read_bytes() for path in files}


def scores(**changes) -> dict[str, float | None]:
    shown = dict.fromkeys(("macro_f1", "mcc", "auc_ovr", "ece", "sharpe", "max_drawdown"), 0.5)
    return {**shown, "trades": 12345, "log_loss": 1.0, **changes}


def cell(model: str, horizon: int = 5, val: float = 1.0, **test) -> CellResult:
    return CellResult(model, horizon, scores(log_loss=val), scores(**test), scores(log_loss=1.1))


# ranking


def test_ranked_by_validation_whatever_test_says():
    board = rank_cells([cell("a", val=1.2, log_loss=0.8), cell("b", val=1.1, log_loss=0.9)], "prior")
    assert [(row.rank, row.model) for row in board.horizons[5]] == [(1, "b"), (2, "a")]
    assert [row.delta_reference for row in board.horizons[5]] == pytest.approx([-0.2, -0.3])


def test_equal_losses_are_ranked_by_name_and_horizons_apart():
    board = rank_cells([cell("b", 20), cell("b"), cell("a"), cell("a", 20, val=2.0)], "prior")
    assert list(board.horizons) == [5, 20]
    assert [[row.model for row in rows] for rows in board.horizons.values()] == [["a", "b"], ["b", "a"]]


def test_leaderboard_survives_json():
    board = rank_cells([cell("a", 20), cell("a", 5, sharpe=None)], "prior")
    assert Leaderboard.from_dict(board.to_dict()) == board


# the stage


def test_leaderboard_holds_each_cells_own_figures(evaluated):
    board = compare(config(), evaluated)
    assert board == load_leaderboard(evaluated.report)
    for horizon, rows in board.horizons.items():
        prior = read_json(evaluated.cell_metrics(f"prior_h{horizon}"))
        assert [row.val_log_loss for row in rows] == sorted(row.val_log_loss for row in rows)
        for row in rows:
            metrics = read_json(evaluated.cell_metrics(f"{row.model}_h{horizon}"))
            assert row.val_log_loss == metrics["val"]["log_loss"]
            assert row.delta_reference == metrics["test"]["log_loss"] - prior["test"]["log_loss"]
            for key in ("macro_f1", "mcc", "auc_ovr", "ece", "sharpe", "max_drawdown", "trades"):
                assert getattr(row, key) == metrics["test"][key]
    assert [row.model for row in board.horizons[5]] == ["sharp", "blunt", "prior", "contrary"]


def test_metrics_file_is_short_enough_for_dvc_exp_show(evaluated):
    board = compare(config(), evaluated)
    content = read_json(evaluated.metrics)
    for horizon, rows in board.horizons.items():
        expected = {"best": "sharp", "val": round(rows[0].val_log_loss, 6), "test": round(rows[0].test_log_loss, 6)}
        assert content[f"h{horizon}"] == expected
    columns = [f"{horizon}.{key}" for horizon, values in content.items() for key in values]
    assert sum(len(column) + 3 for column in columns) < 80  # beside DVC's own 40


def test_same_inputs_same_bytes(paths):
    compare(config(), paths)
    first = outputs(paths)
    compare(config(), paths)
    assert outputs(paths) == first
    assert sorted(path.name for path in paths.report.iterdir()) == ["index.html", "leaderboard.json", "leaderboard.md"]
    assert str(paths.root) not in first["experiments/report/index.html"].decode()


def test_the_prior_is_the_reference_even_outside_the_matrix(paths):
    cells = [entry for entry in CONFIG["cells"] if entry["model"] != "prior"]
    with_prior, without = compare(config(), paths), compare(config(cells=cells), paths)
    expected = {row.model: row.delta_reference for row in with_prior.horizons[5] if row.model != "prior"}
    assert {row.model: row.delta_reference for row in without.horizons[5]} == expected


def test_any_model_can_be_the_reference(paths):
    board = compare(config(reference="blunt"), paths)
    assert [row.model for row in board.horizons[20] if row.delta_reference == 0] == ["blunt"]
    assert "Δ blunt" in (paths.report / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("metrics/metrics.json", "dvc repro evaluate@sharp-5"),
        ("predictions/test_predictions.parquet", "dvc repro evaluate@sharp-5"),
        ("plots/test_equity.csv", "dvc repro evaluate@sharp-5"),
        ("checkpoints/model/model.json", "dvc repro train@sharp-5"),
    ],
)
def test_a_missing_file_names_the_cell_and_the_command(paths, name, command):
    compare(config(), paths)
    before = outputs(paths)
    (paths.run("sharp_h5") / name).unlink()
    with pytest.raises(DataError, match=rf"^sharp_h5: .*{re.escape(name)} is missing; run `{command}` first$"):
        compare(config(), paths)
    assert outputs(paths) == before  # the last good report stays


def test_cells_scored_on_other_windows_are_refused(paths):
    file = paths.predictions("blunt_h20", "test")
    frame = pd.read_parquet(file)
    frame.iloc[1:].to_parquet(file, index=False)
    with pytest.raises(DataError, match=r"blunt_h20/.*: other windows or labels than prior_h20's; run `dvc repro`"):
        compare(config(), paths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "lstm"}, "expected a reference among the models; lstm_h(5|20) is no cell"),
        ({"cells": CONFIG["cells"] * 2}, "expected each cell once; prior_h5 stands twice"),
        ({"cells": []}, "config.cells"),
        ({"cells": [{"model": "prior"}]}, "key 'config.cells.0.horizon' is missing"),
        ({"refrence": "prior"}, "unknown key 'config.refrence'; did you mean 'reference'"),
    ],
)
def test_config_errors(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_main_reads_its_spec(paths, monkeypatch):
    monkeypatch.chdir(paths.root)
    paths.specs.mkdir(parents=True, exist_ok=True)
    paths.spec("compare").write_text(dump_yaml({"stage": "compare", "config": CONFIG}))
    stage.main()
    assert paths.metrics.is_file()


def test_no_leaderboard_yet(tmp_path):
    with pytest.raises(DataError, match=r"leaderboard.json: no leaderboard yet; run `dvc repro` first"):
        load_leaderboard(tmp_path)


# renderings


def test_markdown_has_a_table_for_each_horizon(evaluated):
    board = compare(config(), evaluated)
    text = render_markdown(board)
    assert text == (evaluated.report / "leaderboard.md").read_text()
    tables = re.findall(r"## (\d+) bars ahead\n\n((?:\|.*\n)+)", text)
    assert [heading for heading, _ in tables] == ["5", "20"]
    for (_, table), rows in zip(tables, board.horizons.values(), strict=True):
        lines = table.splitlines()
        assert {line.count("|") for line in lines} == {13}
        assert [line.split("|")[2].strip() for line in lines[2:]] == [row.model for row in rows]


def test_undefined_values_and_signs_are_shown_as_such():
    board = rank_cells([cell("flat", sharpe=None, mcc=0.0, max_drawdown=-0.1234, log_loss=1.05)], "prior")
    row = render_markdown(board).splitlines()[-1]
    shown = ["1", "flat", "1.0000", "1.0500", "−0.0500", "0.500", "0.000", "0.500", "0.500", "–", "−12.3%", "12,345"]
    assert row == "| " + " | ".join(shown) + " |"


def test_terminal_tables_fit_120_columns():
    worst = {"sharpe": -123.45, "max_drawdown": -1.0, "trades": 123_456, "log_loss": 12.3456}
    board = rank_cells([cell("transformer", h, val=13.0, **worst) for h in (5, 20)], "prior")
    console = Console(width=120, record=True, file=io.StringIO())
    render_terminal(board, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for shown in ("5 bars ahead", "20 bars ahead", "transformer", "−123.45", "−100.0%", "123,456", "val log-loss"):
        assert shown in text


def test_page_stands_alone_and_shows_every_cell(evaluated):
    board = compare(config(), evaluated)
    page = (evaluated.report / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#)|@import|url\(|<script|https?:", page), "the page reaches outside itself"
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    bodies = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    for body, rows in zip(bodies, board.horizons.values(), strict=True):
        assert re.findall(r"swatch [^>]*></span>(\w+)</td>", body) == [row.model for row in rows]
    assert page.count('class="confusion"') == 8
    assert len(re.findall(r"<h4>(?:sharp|blunt|contrary)<span>lowest 1\.\d+ at step \d+", page)) == 6


def test_page_counts_what_was_predicted(evaluated):
    compare(config(), evaluated)
    page = (evaluated.report / "index.html").read_text()
    frame = pd.read_parquet(evaluated.predictions("sharp_h5", "test"))
    expected = pd.crosstab(frame["label"], frame["prediction"]).reindex(
        index=[-1, 0, 1], columns=[-1, 0, 1], fill_value=0
    )
    first = page.split('class="confusion"')[1]
    assert [int(count) for count in re.findall(r"<small>(\d+)</small>", first)] == expected.to_numpy().ravel().tolist()


def test_page_escapes_what_it_is_given(evaluated, monkeypatch):
    real = stage.render_report

    def spoiled(board, details, spans):
        return real(board, details, {h: dataclasses.replace(s, symbols=["<b>&"]) for h, s in spans.items()})

    monkeypatch.setattr(stage, "render_report", spoiled)
    compare(config(), evaluated)
    page = (evaluated.report / "index.html").read_text()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page


# charts


def line(x, y) -> Line:
    return Line("a", "s0", np.asarray(x, np.float64), np.asarray(y, np.float64))


def test_lines_are_scaled_into_the_box():
    chart = step_chart([line([0, 5, 10], [1.0, 3.0, 2.0])])
    points = [tuple(map(float, pair.split())) for pair in chart.paths[0].data[1:].split("L")]
    assert [x for x, _ in points] == [0, 500, 1000]
    assert [y for _, y in points] == pytest.approx([954.5, 45.5, 500])  # 5% of the range is kept free at each end
    assert [(tick.label, tick.at) for tick in chart.y_ticks] == [
        ("1.0", pytest.approx(95.455)),
        ("1.5", pytest.approx(72.727)),
        ("2.0", pytest.approx(50)),
        ("2.5", pytest.approx(27.273)),
        ("3.0", pytest.approx(4.545)),
    ]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.013, 0.004), (1.0911, 1.0924), (-3.0, 1900.0), (7.0, 7.1)])
def test_nice_values_are_round_distinct_and_inside(low, high):
    values, digits = nice_values(low, high)
    assert 2 <= len(values) <= 6
    assert low <= values[0] < values[-1] <= high
    assert len({f"{value:.{digits}f}" for value in values}) == len(values)


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (1, ["01-01 06:00", "01-01 12:00", "01-01 18:00", "01-02 00:00"]),
        (4, ["01-02", "01-03", "01-04", "01-05"]),
        (40, ["01-06", "01-13", "01-20", "01-27", "02-03", "02-10"]),
        (150, ["2020-02", "2020-03", "2020-04", "2020-05"]),
        (700, ["2020-04", "2020-07", "2020-10", "2021-01", "2021-04", "2021-07", "2021-10"]),
    ],
)
def test_time_ticks_suit_the_span(days, labels):
    start = pd.Timestamp("2020-01-01 01:00").as_unit("ns").value
    chart = time_chart([line([start, start + days * 86_400e9], [0.0, 0.1])])
    assert [tick.label for tick in chart.x_ticks] == labels
    assert all(0 <= tick.at <= 100 for tick in chart.x_ticks)


def test_a_flat_line_still_has_a_scale():
    chart = time_chart([line([0, 1e15], [0.0, 0.0])])
    assert "0%" in [tick.label for tick in chart.y_ticks]
    assert chart.paths[0].data == "M0.0 500.0L1000.0 500.0"


@pytest.mark.parametrize(("width", "last"), [(120, "trades"), (80, "macro-F1")])
def test_a_narrow_terminal_loses_the_last_columns_and_no_letter(width, last):
    board = rank_cells([cell("transformer"), cell("prior")], "prior")
    console = Console(width=width, file=io.StringIO())
    render_terminal(board, console)
    header = next(line for line in console.file.getvalue().splitlines() if "model" in line)
    assert "transformer" in console.file.getvalue()
    assert "…" not in console.file.getvalue()
    assert last in header
