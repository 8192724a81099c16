"""The parts of the report page: columns, specifications, captions. tests/test_report_page.py opens it in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from _report_cells import EPOCHS, SYMBOLS, interval, write_report_files
from barcast.errors import ConfigError, DataError
from barcast.evaluation.plots import OTHERS, TOP_FEATURES, importance_table, thin
from barcast.files import read_json, write_json
from barcast.paths import Paths
from barcast.report.cell_page import LAGS, importance_figures, learning_curve, wilson, write_dvc_plots
from barcast.report.columns import as_columns, minute, minutes, number, rounded
from barcast.report.data_page import Segment, around_cut, balance, build_provenance, describe, find_gaps, hash_of
from barcast.report.figures import specs
from barcast.report.leaderboard_table import Value, significance_caption, table_columns
from barcast.report.page import _libraries, model_styles, render
from barcast.report.read_page import read_data, read_page

MODELS = ["prior", "logistic", "xgboost", "lstm"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    return root, write_report_files(root, MODELS, [5, 20])


@pytest.fixture
def files(written, tmp_path):
    """A copy of the files, to be changed: paths, and what `compare` passes."""
    root, results = written
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    moved = {n: replace(cell, folder=tmp_path / cell.folder.relative_to(root)) for n, cell in results.cells.items()}
    return Paths(tmp_path), replace(results, cells=moved)


def with_cell(results, name, **changes):
    return replace(results, cells={**results.cells, name: replace(results.cells[name], **changes)})


@pytest.fixture(scope="module")
def page(written):
    root, results = written
    return read_page(Paths(root), results)


@pytest.fixture(scope="module")
def html(page):
    return render(page)


# the whole page


def test_same_files_same_bytes(written, html):
    root, results = written
    assert render(read_page(Paths(root), results)) == html
    assert str(root) not in html


def test_the_page_is_self_contained(html):
    own = html.replace(_libraries(), "")
    assert len(own) < len(html) / 3
    assert not re.search(r"(src|href)=\"(?!#|data:)|@import|url\(|https?:", own)


def test_blocks_are_json_that_closes_no_script(page, html):
    blocks = dict(re.findall(r'<script type="application/json" id="block-([^"]+)">(.*?)</script>', html, re.DOTALL))
    assert set(blocks) == {"h5", "h20", "data", *page.cells}
    for name, cell in page.cells.items():
        assert json.loads(blocks[name]) == {kind: figure.columns for kind, figure in cell.figures.items()}
    assert html.count("</script>") == len(blocks) + 3


def test_content_is_escaped(files):
    paths, results = files
    spec = results.cells["xgboost_h5"].spec
    results = with_cell(results, "xgboost_h5", spec={**spec, "config": {**spec["config"], "note": "</script><b>&"}})
    audit = read_json(paths.audit)
    audit["checks"][0]["name"] = "<i>"
    write_json(paths.audit, audit)
    table = results.cells["xgboost_h5"].folder / "plots/importance.csv"
    table.write_text(table.read_text().replace("feature_0_of_many", "</script>"))
    html = render(read_page(paths, results))
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in html
    assert "<i>" not in html.replace('<i class="', "")
    assert "\\u003c/script>" in html


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("plots/test_equity.csv", "evaluate"),
        ("plots/test_coverage.csv", "evaluate"),
        ("plots/importance.csv", "evaluate"),
        ("checkpoints/model/model.json", "train"),
    ],
)
def test_a_missing_file_names_the_command_that_makes_it(files, name, command):
    paths, results = files
    (results.cells["xgboost_h5"].folder / name).unlink()
    message = rf"^xgboost_h5: .*{name} is missing; run `dvc repro {command}@xgboost-5` first$"
    with pytest.raises(DataError, match=message):
        read_page(paths, results)


def test_a_missing_file_of_an_ensemble_names_its_own_stage(files):
    paths, results = files
    results = with_cell(results, "xgboost_h5", spec={})
    (results.cells["xgboost_h5"].folder / "plots/importance.csv").unlink()
    with pytest.raises(DataError, match=r"importance.csv is missing; run `dvc repro ensemble@5` first$"):
        read_page(paths, results)


def test_a_row_that_was_not_trained_has_no_learning_curve(files):
    paths, results = files
    results = with_cell(results, "xgboost_h5", spec={})
    shutil.rmtree(results.cells["xgboost_h5"].folder / "checkpoints")
    page = read_page(paths, results)
    assert "learning" not in page.cells["xgboost_h5"].figures
    assert page.cells["xgboost_h5"].config == {}
    assert "Averages other models’ predictions" in render(page)


def test_a_column_shows_value_interval_and_verdict(page):
    columns = {column.key: column for column in table_columns("prior")}
    row = page.tables[0].rows[0]
    assert columns["delta_reference"].value(row) == Value(
        row["delta_reference"]["value"], "−0.0270", "−0.0350 … −0.0190", "better"
    )
    assert columns["verdict"].value(row) == Value("better", "better", "", "better")
    assert columns["score"].value(row) == Value(row["score"], "1.0530")
    assert columns["verdict"].value(page.tables[0].rows[-1]).text == "reference"
    assert columns["sharpe"].value(page.tables[0].rows[-1]) == Value(None, "–")
    assert columns["mcs"].value(row).text == "in, p 1.00"
    assert columns["seeds"].value(row) == Value(0.0007, "± 0.0007", "3 seeds")
    assert set(page.tables[0].figures["delta"].columns["model"]) == {"logistic", "xgboost", "lstm"}, (
        "not the reference itself"
    )


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.5, "+.2f", "−0.50"),
        (0.00001, "+.2f", "0.00"),
        (-0.00001, ".1%", "0.0%"),
        (None, ".2f", "–"),
        (7, ",.0f", "7"),
    ],
)
def test_numbers_in_words(value, form, text):
    assert number(value, form) == text


def test_caption_of_the_tests(written):
    _, results = written
    caption = significance_caption(results, 5)
    assert "1,000 bootstrap samples in blocks of 23 times" in caption
    assert "(null: no model is better than prior): p = 0.002" in caption
    assert "overfitted: 31%" in caption
    correlation = "Rank correlation of the score with log-loss on test: 0.62 (0.32 to 0.92); of validation only: 0.41."
    assert correlation in caption
    undefined = {"score": None, "val": None}
    one_model = {"h5": {**results.significance["h5"], "spa": None, "rank_correlation": undefined}}
    caption = significance_caption(replace(results, significance=one_model, overfitting={"h5": {"pbo": None}}), 5)
    assert caption == "Intervals: 1,000 bootstrap samples in blocks of 23 times on average."
    certain = {"h5": {**results.significance["h5"], "spa": {"consistent": 0.0}}}
    assert "p < 0.001" in significance_caption(replace(results, significance=certain), 5)


@pytest.mark.parametrize(
    "undefined",
    [
        {"score": None, "val": interval(0.4, 0.1)},
        {"score": interval(0.6, 0.1), "val": None},
        {"score": {"value": 0.6, "low": None, "high": None}, "val": interval(0.4, 0.1)},
    ],
)
def test_an_undefined_rank_correlation_is_left_out(written, undefined):
    _, results = written
    significance = {"h5": {**results.significance["h5"], "rank_correlation": undefined}}
    assert "Rank" not in significance_caption(replace(results, significance=significance), 5)


def test_a_caption_names_the_limit_that_ended_a_training(files):
    paths, results = files
    metrics = {**results.cells["xgboost_h5"].metrics, "ended_by_limit": "max_rounds = 60"}
    html = render(read_page(paths, with_cell(results, "xgboost_h5", metrics=metrics)))
    caption = "max_rounds = 60 ended the training while it was still improving."
    assert caption in html.split('id="xgboost_h5"')[1].split('id="xgboost_h20"')[0]
    assert "ended the training" not in html.split('id="xgboost_h5"')[0]


def history(*losses):
    return [{"step": step, "train_log_loss": loss - 0.1, "val_log_loss": loss} for step, loss in losses]


def test_each_network_has_its_own_epochs():
    losses = (0, 1.2), (1, 1.1), (2, 1.15), (4, 1.3), (5, 1.25), (6, 1.05), (8, 1.0), (9, 1.4)
    curve = learning_curve(history(*losses), 4, None)
    assert curve.kind == "epochs"
    assert curve.columns == {
        "step": [1, 2, 3, 1, 2, 3, 1, 2],
        "train": [1.1, 1.0, 1.05, 1.2, 1.15, 0.95, 0.9, 1.3],
        "val": [1.2, 1.1, 1.15, 1.3, 1.25, 1.05, 1.0, 1.4],
        "network": [1, 1, 1, 2, 2, 2, 3, 3],
        "lowest": [0, 1, 0, 0, 0, 1, 1, 0],
    }
    expected = "Validation log-loss is lowest at epoch 2 (1.1000), 3 (1.0500) and 1 (1.0000) of the 3 networks."
    assert curve.caption == expected
    assert (
        learning_curve(history(*losses[:3]), 4, None).caption
        == "Validation log-loss is lowest at epoch 2 of 3: 1.1000."
    )


def test_a_learning_curve_keeps_its_lowest_step_among_thousands():
    losses = [(step, 1.1 + abs(step - 777) / 1e4) for step in range(2000)]
    curve = learning_curve(history(*losses), None, "max_rounds = 2000")
    assert curve.kind == "learning"
    assert len(curve.columns["step"]) <= 201
    assert [
        step for step, lowest in zip(*(curve.columns[key] for key in ("step", "lowest")), strict=True) if lowest
    ] == [777]
    assert curve.columns["step"] == sorted(curve.columns["step"])
    assert curve.caption.startswith(
        "Validation log-loss is lowest at step 777 of 1,999: 1.1000. max_rounds = 2000 ended"
    )
    assert learning_curve(history((0, 1.1)), None, None) is None
    assert learning_curve([], None, None) is None


def test_reliability_shows_calibrated_probabilities_only_where_calibration_helped(files, page):
    paths, results = files
    assert set(page.cells["xgboost_h5"].figures["reliability"].columns["kind"]) == {"calibrated", "uncalibrated"}
    metrics = {**results.cells["xgboost_h5"].metrics, "calibration": {"method": "none"}}
    reliability = read_page(paths, with_cell(results, "xgboost_h5", metrics=metrics)).cells["xgboost_h5"].figures
    assert set(reliability["reliability"].columns["kind"]) == {"uncalibrated"}
    assert "no calibration" in reliability["reliability"].caption


def test_each_model_has_its_own_look():
    names = ["prior", *(f"m{i}" for i in range(16))]
    styles = model_styles(names, "prior")
    assert len(set(styles.values())) == 17
    assert (styles["prior"], styles["m0"], styles["m8"]) == ("reference dashed", "s0", "s0 dashed")


# the specifications

COLOURS = {"a": "var(--s0)", "b": "red"}


def test_specifications_are_valid_contain_no_data_and_are_the_same_each_time():
    made, again = specs(COLOURS, frozenset("b")), specs(COLOURS, frozenset("b"))
    assert json.dumps(made) == json.dumps(again), "no names that count or are random"
    for kind, spec in made.items():
        alt.LayerChart.from_dict({"$schema": alt.SCHEMA_URL, **spec}, validate=True)
        assert set(spec) <= {"data", "height", "layer", "usermeta", "width"}, kind
        assert (spec["data"], spec["width"]) == ({"name": "main"}, "container"), kind


def test_the_bundled_vega_lite_is_the_one_that_altair_writes_for():
    assert f'"{alt.SCHEMA_VERSION.removeprefix("v")}"' in _libraries()


def test_every_field_that_a_figure_draws_is_in_its_columns(page):
    every = specs(dict.fromkeys(MODELS, "red"), frozenset())
    computed = {"model", "gain", "share"}  # by the figure itself
    for block in (*page.cells.values(), *page.tables, page.data):
        for name, figure in block.figures.items():
            fields = set(re.findall(r'"field": "(\w+)"', json.dumps(every[figure.kind])))
            assert fields - computed <= set(figure.columns), name


# columns


@given(st.lists(st.floats(allow_nan=True), max_size=20), st.integers(0, 6))
def test_rounded_is_json(values, digits):
    shown = rounded(values, digits)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    for value, kept in zip(values, shown, strict=True):
        assert (kept is None) == (not np.isfinite(value))
        assert kept is None or kept == round(value, digits)


@given(st.integers(1, 300), st.integers(2, 50))
def test_thin_keeps_both_ends_in_order(rows, points):
    kept = thin(pd.DataFrame({"x": range(rows)}), points)["x"].tolist()
    assert len(kept) == min(rows, points)
    assert (kept[0], kept[-1]) == (0, rows - 1) if rows > 1 else kept == [0]
    assert kept == sorted(set(kept))


def test_a_frame_becomes_json_columns():
    frame = pd.DataFrame({"n": [1, 2], "x": [0.123456, np.nan], "s": ["a", "b"]})
    assert as_columns(frame, {"x": 3}) == {"n": [1, 2], "x": [0.123, None], "s": ["a", "b"]}


def test_minutes_are_those_of_utc():
    times = pd.Series(pd.to_datetime(["2020-01-01 00:00:00", "2020-01-01 00:01:59"], utc=True))
    assert minutes(times).tolist() == [26297280, 26297281]
    assert minutes(times.dt.tz_convert("Asia/Tokyo")).tolist() == [26297280, 26297281]
    assert minute(times[1]) == minute("2020-01-01T01:01:59+01:00") == 26297281


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_is_that_of_statsmodels(count, share):
    hits = round(share * count)
    low, high = wilson(np.array([hits / count]), np.array([float(count)]))
    expected = proportion_confint(hits, count, method="wilson")
    assert (low[0], high[0]) == pytest.approx(expected, abs=1e-6)


# importance


def grid(features: int, lags: int, seed: int = 0) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([[f"f{i}" for i in range(features)], range(lags)], names=["feature", "lag"])
    table = index.to_frame(index=False)
    weight = np.random.default_rng(seed).random(len(table))
    return table.assign(importance=weight / weight.sum()).sort_values("importance", ascending=False)


def drawn(table):
    return {name: figure.columns for name, figure in importance_figures(table).items()}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9))
def test_the_importance_table_loses_nothing(features, lags):
    whole = grid(features, lags)
    table = importance_table(whole)
    assert table["importance"].sum() == pytest.approx(1)
    kept = set(table["feature"]) - {OTHERS}
    assert len(kept) == min(features, TOP_FEATURES)
    total = whole.groupby("feature")["importance"].sum()
    assert total[list(kept)].min() >= total.drop(list(kept)).max() if features > TOP_FEATURES else OTHERS not in kept
    expected = whole.groupby("lag")["importance"].sum()
    assert table.groupby("lag")["importance"].sum().to_dict() == pytest.approx(expected.to_dict())
    assert table["importance"].is_monotonic_decreasing


def test_importance_by_feature_by_lag_and_by_both():
    whole = grid(5, 4)
    found = drawn(importance_table(whole))
    by_feature = whole.groupby("feature")["importance"].sum().sort_values(ascending=False)
    assert found["features"]["feature"] == by_feature.index.tolist()
    assert found["features"]["share"] == [round(1e5 * share) for share in by_feature]
    assert found["lags"]["lag"] == ["3", "2", "1", "0"]
    assert sum(found["lags"]["share"]) == pytest.approx(1e5, abs=4)
    heat = found["heat"]
    cells = np.array(heat["grid"]).reshape(5, 4)
    for _, row in whole.iterrows():
        shown = cells[heat["feature"].index(row["feature"]), heat["lag"].index(str(row["lag"]))]
        assert shown == round(1e5 * row["importance"])


def test_many_lags_share_columns_and_the_whole_window_has_its_own():
    table = grid(2, 130)
    table.loc[table.index[0], "lag"] = np.nan
    found = drawn(table)
    assert len(found["lags"]["lag"]) <= LAGS + 1
    assert found["lags"]["lag"][0] == "129–131"
    assert found["lags"]["lag"][-2:] == ["0–2", "all"]
    assert sum(found["lags"]["share"]) == pytest.approx(1e5, abs=60)


def test_separate_importances_of_features_and_lags_have_a_figure_each():
    features = pd.DataFrame({"feature": ["a", "b"], "lag": np.nan, "importance": [0.75, 0.25]})
    lags = pd.DataFrame({"feature": None, "lag": [0.0, 3.0], "importance": [0.9, 0.1]})
    table = importance_table(pd.concat([features, lags]))
    found = drawn(table)
    assert found == {
        "features": {"feature": ["a", "b"], "share": [75000, 25000]},
        "lags": {"lag": ["3", "0"], "share": [10000, 90000]},
    }


def test_one_lag_needs_no_heat_map_and_no_importance_no_figure():
    assert list(drawn(grid(3, 1))) == ["features"]
    assert drawn(grid(3, 1).head(0)) == {}
    assert importance_table(grid(3, 1).head(0)).empty


# data


def test_balance_counts_every_known_label(written):
    root, _ = written
    paths = Paths(root)
    index = {split: pd.read_parquet(paths.windows / split / "index.parquet") for split in ("train", "val", "test")}
    labels = {split: np.load(paths.windows / f"labels/{split}_h20.npy") for split in index}
    frame = balance(index, labels)
    for split, packed in labels.items():
        counts = frame[frame["split"] == split].groupby("class")["labels"].sum()
        known = packed["label"][packed["known"]]
        assert counts.to_dict() == {"down": (known == -1).sum(), "flat": (known == 0).sum(), "up": (known == 1).sum()}
    assert (frame.groupby(["split", "start"])["high"].max() == 1).all()
    assert (frame["high"] - frame["low"]).to_numpy() == pytest.approx(
        frame["labels"] / frame.groupby(["split", "start"])["labels"].transform("sum"), abs=2e-4
    )


def test_gaps_are_found_where_bars_are_missing(written):
    root, _ = written
    index = {split: pd.read_parquet(Paths(root).windows / split / "index.parquet") for split in ("train", "val")}
    start = pd.Timestamp("2021-01-01", tz="UTC")
    expected = [(minutes(start + pd.Timedelta(hours=39)), 3), (minutes(start + pd.Timedelta(hours=299)), 1)]
    expected_gaps = [Segment(symbol, "gap", at, at, missing) for symbol in SYMBOLS for at, missing in expected]
    assert find_gaps(index) == expected_gaps


def test_purge_and_embargo_are_between_the_splits(written):
    root, _ = written
    timeline = pd.DataFrame(read_data(Paths(root), [5, 20]).figures["timeline"].columns)
    own = timeline[(timeline["symbol"] == "BTC") & (timeline["what"] != "gap")].sort_values("start")
    assert own["what"].tolist() == ["train", "purged", "embargoed", "val", "purged", "embargoed", "test"]
    assert own["start"].tolist()[1:] == own["end"].tolist()[:-1], "nothing between them, nothing twice"
    assert own[own["what"] == "purged"]["bars"].tolist() == [48, 48]


def test_a_cut_is_shown_with_its_surroundings():
    segments = [("A", "train", 0, 9_000, 1), ("A", "purged", 9_000, 9_100, 1), ("A", "embargoed", 9_100, 9_900, 1)]
    segments += [("A", "val", 9_900, 20_000, 1), ("A", "test", 21_000, 30_000, 1)]
    shown = around_cut([Segment(*segment) for segment in segments], 9_100)
    assert [segment.what for segment in shown] == ["train", "purged", "embargoed", "val"]
    assert (shown[0].start, shown[-1].end) == (8_800, 10_100)


def test_splits_made_elsewhere_have_no_cuts_and_no_gaps(files):
    paths, results = files
    report = read_json(paths.splits / "split.json")
    del report["cuts"], report["symbols"]
    report["source"] = "splits"
    for split in report["splits"].values():
        for part in split.values():
            del part["purged"], part["embargoed"]
    write_json(paths.splits / "split.json", report)
    audit = read_json(paths.audit)
    audit["checks"].append({"name": "the scaler is fitted on train only", "skipped": "needs raw bars"})
    write_json(paths.audit, audit)
    html = render(read_page(paths, results))
    assert "splits made elsewhere" in html
    assert '<span class="chip noise">skipped</span><span class="caption">Needs raw bars.</span>' in html
    assert "Around the cut" not in html
    assert "purged before a cut" not in html
    assert "Gaps in the bars" not in html


def test_results_of_an_audit_as_text():
    text = describe({"changed_values": 1200, "label": {"feature": "x", "score": 0.7128715}})
    assert text == "changed values 1,200; label: feature x, score 0.7129"


# provenance


def test_provenance_names_data_settings_code_and_versions(written, page):
    provenance, (_, results) = page.provenance, written
    assert provenance.data == {"data/raw/bars.parquet": hashlib.sha256(b"bars").hexdigest()}
    assert provenance.libraries == {"numpy": "2.4.6", "xgboost": "3.2.0"}
    names = [origin.name for origin in provenance.origins]
    assert names == ["prepare", "audit", "window", "evaluate", "compare", *results.cells]


def test_provenance_sees_settings_and_code_and_ignores_the_order_of_keys(written):
    _, results = written
    spec = results.cells["xgboost_h5"].spec
    config, code = spec["config"], spec["code"]

    def origin(**changes):
        return build_provenance({"xgboost_h5": {**spec, **changes}}, {"xgboost_h5": "ab" * 16}, {}).origins[0]

    assert origin(config=dict(reversed(config.items()))) == origin()
    assert origin(config={**config, "max_depth": 5}).settings != origin().settings
    assert origin(code={**code, "barcast.models": "2" * 16}).code != origin().code
    assert origin().key == "ab" * 6


def test_rows_without_a_spec_have_no_provenance(files):
    paths, results = files
    page = read_page(paths, with_cell(results, "xgboost_h5", spec={}))
    assert "xgboost_h5" not in [origin.name for origin in page.provenance.origins]


def test_a_missing_spec_is_an_error(files):
    paths, results = files
    paths.spec("audit").unlink()
    with pytest.raises(ConfigError, match=r"audit.yaml: no such file"):
        read_page(paths, results)


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path):
    for name, files in {"a": {"x": "1", "y": "2"}, "b": {"y": "2", "x": "1"}, "c": {"x": "2", "y": "1"}}.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "b") != hash_of(tmp_path / "c")


# for dvc plots


def test_dvc_gets_confusion_by_cell_and_curves_by_horizon(files, page, tmp_path):
    _, results = files
    runs = {name: cell.folder for name, cell in results.cells.items()}
    write_dvc_plots(tmp_path / "plots", page.cells.values(), results.cells)
    confusion = tmp_path / "plots/confusion"
    assert {file.stem for file in confusion.iterdir()} == set(page.cells)
    assert (confusion / "xgboost_h5.csv").read_bytes() == (runs["xgboost_h5"] / "plots/test_confusion.csv").read_bytes()
    curves = pd.read_csv(tmp_path / "plots/learning/h20.tsv", sep="\t")
    assert list(curves) == ["cell", "step", "val_log_loss"]
    networks = {f"lstm_h20/{number}" for number in (1, 2, 3)}
    assert set(curves["cell"]) == {"logistic_h20", "xgboost_h20", *networks}, "the prior is fitted in one step"
    assert curves[curves["cell"] == "lstm_h20/3"]["step"].tolist() == list(range(1, EPOCHS + 1))
    history = read_json(runs["xgboost_h20"] / "checkpoints/model/model.json")["training_history"]
    own = curves[curves["cell"] == "xgboost_h20"]
    assert own["val_log_loss"].tolist() == pytest.approx([entry["val_log_loss"] for entry in history], abs=1e-5)
