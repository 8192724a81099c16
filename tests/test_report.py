"""What the report page is made of: columns, specifications, words. tests/test_report_page.py opens it in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import altair as alt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from _report_cells import SYMBOLS, interval, write_report_files
from barcast.config import dump_yaml, load_yaml
from barcast.errors import ConfigError, DataError
from barcast.evaluation._numbers import number
from barcast.evaluation.page import importance
from barcast.evaluation.page.board import Value, table_columns
from barcast.evaluation.page.columns import minutes, rounded, thinned
from barcast.evaluation.page.content import wilson
from barcast.evaluation.page.data import balance, border, holes, in_words, read_data
from barcast.evaluation.page.data_figures import data_specs
from barcast.evaluation.page.dvc_plots import write_dvc_plots
from barcast.evaluation.page.figures import specs
from barcast.evaluation.page.judged import Judged, significance_words
from barcast.evaluation.page.provenance import hash_of, read_provenance
from barcast.evaluation.page.read import read_page
from barcast.evaluation.page.render import _libraries, model_styles, render
from barcast.evaluation.plots import OTHERS, TOP_FEATURES, importance_table
from barcast.files import read_json, write_json
from barcast.paths import Paths

MODELS = ["prior", "logistic", "xgboost"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    return root, write_report_files(root, MODELS, [5, 20])


@pytest.fixture
def files(written, tmp_path):
    """A copy of the files, to be changed; paths, what `compare` found, and the cells' folders."""
    root, (judged, runs) = written
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    return Paths(tmp_path), judged, {name: tmp_path / run.relative_to(root) for name, run in runs.items()}


@pytest.fixture(scope="module")
def page(written):
    root, found = written
    return read_page(Paths(root), *found, MODELS)


@pytest.fixture(scope="module")
def html(page):
    return render(page)


# the whole page


def test_same_files_same_bytes(written, html):
    root, found = written
    assert render(read_page(Paths(root), *found, MODELS)) == html
    assert str(root) not in html


def test_the_page_reaches_nowhere(html):
    own = html.replace(_libraries(), "")
    assert len(own) < len(html) / 3
    assert not re.search(r"(src|href)=\"(?!#|data:)|@import|url\(|https?:", own)


def test_blocks_are_json_that_ends_no_script(page, html):
    blocks = dict(re.findall(r'<script type="application/json" id="block-([^"]+)">(.*?)</script>', html, re.DOTALL))
    assert set(blocks) == {"h5", "h20", "data", *page.cells}
    for name, cell in page.cells.items():
        assert json.loads(blocks[name]) == cell.figures
    assert html.count("</script>") == len(blocks) + 3


def test_what_it_is_given_is_escaped(files):
    paths, judged, runs = files
    spec = load_yaml(paths.spec("xgboost_h5"))
    spec["config"]["note"] = "</script><b>&"
    paths.spec("xgboost_h5").write_text(dump_yaml(spec))
    audit = read_json(paths.audit)
    audit["checks"][0]["name"] = "<i>"
    write_json(paths.audit, audit)
    table = runs["xgboost_h5"] / "plots/importance.csv"
    table.write_text(table.read_text().replace("feature_0_of_many", "</script>"))
    html = render(read_page(paths, judged, runs, MODELS))
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in html
    assert "<i>" not in html.replace('<i class="', "")
    assert "\\u003c/script>" in html


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("metrics/metrics.json", "evaluate"),
        ("plots/test_equity.csv", "evaluate"),
        ("plots/test_coverage.csv", "evaluate"),
        ("plots/importance.csv", "evaluate"),
        ("checkpoints/model/model.json", "train"),
    ],
)
def test_a_missing_file_names_the_command_that_makes_it(files, name, command):
    paths, judged, runs = files
    (runs["xgboost_h5"] / name).unlink()
    with pytest.raises(
        DataError, match=rf"^xgboost_h5: .*{name} is missing; run `dvc repro {command}@xgboost-5` first$"
    ):
        read_page(paths, judged, runs, MODELS)


def test_a_row_that_was_never_trained_has_no_curve(files):
    paths, judged, runs = files
    paths.spec("xgboost_h5").unlink()
    shutil.rmtree(runs["xgboost_h5"] / "checkpoints")
    page = read_page(paths, judged, runs, MODELS)
    assert "learning" not in page.cells["xgboost_h5"].figures
    assert page.cells["xgboost_h5"].config == {}
    assert "Made of other models’ answers" in render(page)


def test_a_column_shows_value_interval_and_verdict(page):
    columns = {column.key: column for column in table_columns("prior")}
    row = page.boards[0].rows[0]
    assert columns["delta_reference"].value(row) == Value(
        row["delta_reference"]["value"], "−0.0270", "−0.0350 … −0.0190", "better"
    )
    assert columns["verdict"].value(row) == Value("better", "better", "", "better")
    assert columns["score"].value(row) == Value(row["score"], "1.0530")
    assert columns["verdict"].value(page.boards[0].rows[-1]).text == "reference"
    assert columns["sharpe"].value(page.boards[0].rows[-1]) == Value(None, "–")
    assert columns["mcs"].value(row).text == "in, p 1.00"
    assert columns["seeds"].value(row) == Value(0.0007, "± 0.0007", "3 seeds")
    assert set(page.boards[0].figures["delta"]["model"]) == {"logistic", "xgboost"}, "not the reference itself"


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


def test_words_of_the_tests(written):
    _, (judged, _) = written
    words = significance_words(judged, 5)
    assert "1,000 resamples in blocks of 23 times" in words
    assert "That no model beats prior: p = 0.002" in words
    assert "overfitting: 31%" in words
    assert (
        "Rank correlation of the score with log-loss on test: 0.62 (0.32 to 0.92); of validation only: 0.41." in words
    )
    unranked = {"score": None, "val": None}
    alone = {"h5": {**judged.significance["h5"], "spa": None, "rank_correlation": unranked}}
    words = significance_words(Judged(judged.leaderboard, alone, {"h5": {"pbo": None}}), 5)
    assert words == "Intervals: 1,000 resamples in blocks of 23 times on average."
    certain = {"h5": {**judged.significance["h5"], "spa": {"consistent": 0.0}}}
    assert "p < 0.001" in significance_words(Judged(judged.leaderboard, certain, {"h5": {"pbo": None}}), 5)


@pytest.mark.parametrize(
    "unknown",
    [
        {"score": None, "val": interval(0.4, 0.1)},
        {"score": interval(0.6, 0.1), "val": None},
        {"score": {"value": 0.6, "low": None, "high": None}, "val": interval(0.4, 0.1)},
    ],
)
def test_a_rank_correlation_that_is_not_known_is_not_told_of(written, unknown):
    _, (judged, _) = written
    found = {"h5": {**judged.significance["h5"], "rank_correlation": unknown}}
    assert "Rank" not in significance_words(Judged(judged.leaderboard, found, judged.overfitting), 5)


def test_a_limit_that_ended_a_training_is_told_of_below_its_curve(files):
    paths, judged, runs = files
    metrics = read_json(runs["xgboost_h5"] / "metrics/metrics.json")
    write_json(runs["xgboost_h5"] / "metrics/metrics.json", {**metrics, "ended_by_limit": "max_rounds = 60"})
    html = render(read_page(paths, judged, runs, MODELS))
    told = "max_rounds = 60 ended the training while it was still improving."
    assert told in html.split('id="xgboost_h5"')[1].split('id="xgboost_h20"')[0]
    assert "ended the training" not in html.split('id="xgboost_h5"')[0]


def test_each_model_has_a_look_of_its_own():
    names = ["prior", *(f"m{i}" for i in range(16))]
    styles = model_styles(names, "prior")
    assert len(set(styles.values())) == 17
    assert styles["prior"].classes == "reference dashed"
    assert styles["m0"].classes == "s0"
    assert styles["m8"].classes == "s0 dashed"


# the specifications


@pytest.mark.parametrize("kind", sorted({**specs({"a": "red"}, frozenset()), **data_specs()}))
def test_specifications_are_valid(kind):
    spec = {**specs({"a": "var(--s0)", "b": "red"}, frozenset({"b"})), **data_specs()}[kind]
    alt.LayerChart.from_dict({"$schema": alt.SCHEMA_URL, **spec}, validate=True)
    assert spec["width"] == "container"


def test_every_field_that_a_figure_draws_is_in_its_columns(page):
    every = {**specs(dict.fromkeys(MODELS, "red"), frozenset()), **data_specs()}
    made = {"model", "gain", "share", "at"}  # by the figure itself
    for block in (*page.cells.values(), *page.boards, page.data):
        for name, columns in block.figures.items():
            spec = every[name.partition(":")[0]]
            fields = set(re.findall(r'"field": "(\w+)"', json.dumps(spec["layer"])))
            assert fields - made <= set(columns) | {"share"}, name


# columns


@given(st.lists(st.floats(allow_nan=True), max_size=20), st.integers(0, 6))
def test_rounded_is_json(values, digits):
    shown = rounded(values, digits)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    for value, kept in zip(values, shown, strict=True):
        assert (kept is None) == (not np.isfinite(value))
        assert kept is None or kept == round(value, digits)


@given(st.integers(1, 300), st.integers(2, 50))
def test_thinned_keeps_both_ends_in_order(rows, points):
    kept = thinned(pd.DataFrame({"x": range(rows)}), points)["x"].tolist()
    assert len(kept) == min(rows, points)
    assert (kept[0], kept[-1]) == (0, rows - 1) if rows > 1 else kept == [0]
    assert kept == sorted(set(kept))


def test_minutes_are_those_of_utc():
    times = pd.Series(pd.to_datetime(["2020-01-01 00:00:00", "2020-01-01 00:01:59"], utc=True))
    assert minutes(times).tolist() == [26297280, 26297281]
    assert minutes(times.dt.tz_convert("Asia/Tokyo")).tolist() == [26297280, 26297281]
    assert minutes(times[1]) == 26297281


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
    found = {kind: columns for kind, columns, _ in importance.figures(importance_table(whole))}
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
    found = {kind: columns for kind, columns, _ in importance.figures(table)}
    assert len(found["lags"]["lag"]) <= importance.LAGS + 1
    assert found["lags"]["lag"][0] == "129–131"
    assert found["lags"]["lag"][-2:] == ["0–2", "all"]
    assert sum(found["lags"]["share"]) == pytest.approx(1e5, abs=60)


def test_features_and_lags_asked_for_apart_have_a_figure_each():
    features = pd.DataFrame({"feature": ["a", "b"], "lag": np.nan, "importance": [0.75, 0.25]})
    lags = pd.DataFrame({"feature": None, "lag": [0.0, 3.0], "importance": [0.9, 0.1]})
    table = importance_table(pd.concat([features, lags]))
    found = {kind: columns for kind, columns, _ in importance.figures(table)}
    assert found == {
        "features": {"feature": ["a", "b"], "share": [75000, 25000]},
        "lags": {"lag": ["3", "0"], "share": [10000, 90000]},
    }


def test_one_lag_needs_no_heat_map_and_no_importance_no_figure():
    assert [kind for kind, _, _ in importance.figures(grid(3, 1))] == ["features"]
    assert list(importance.figures(grid(3, 1).head(0))) == []
    assert importance_table(grid(3, 1).head(0)).empty


# data


def test_balance_counts_every_known_label(written):
    root, _ = written
    paths = Paths(root)
    index = {split: pd.read_parquet(paths.windows / split / "index.parquet") for split in ("train", "val", "test")}
    frame = pd.DataFrame(balance(index, 20, paths))
    for split in index:
        packed = np.load(paths.windows / f"labels/{split}_h20.npy")
        counts = frame[frame["split"] == split].groupby("class")["labels"].sum()
        known = packed["label"][packed["known"]]
        assert counts.to_dict() == {"down": (known == -1).sum(), "flat": (known == 0).sum(), "up": (known == 1).sum()}
    assert (frame.groupby(["split", "start"])["high"].max() == 1).all()
    assert (frame["high"] - frame["low"]).to_numpy() == pytest.approx(
        frame["labels"] / frame.groupby(["split", "start"])["labels"].transform("sum"), abs=2e-4
    )


def test_holes_are_found_where_bars_are_missing(written):
    root, _ = written
    index = {split: pd.read_parquet(Paths(root).windows / split / "index.parquet") for split in ("train", "val")}
    start = pd.Timestamp("2021-01-01", tz="UTC")
    expected = [(minutes(start + pd.Timedelta(hours=39)), 3), (minutes(start + pd.Timedelta(hours=299)), 1)]
    assert holes(index) == [(symbol, *hole) for symbol in SYMBOLS for hole in expected]


def test_purge_and_embargo_lie_between_the_splits(written):
    root, _ = written
    timeline = pd.DataFrame(read_data(Paths(root), [5, 20]).figures["timeline"])
    own = timeline[(timeline["symbol"] == "BTC") & (timeline["what"] != "hole")].sort_values("start")
    assert own["what"].tolist() == ["train", "purged", "embargoed", "val", "purged", "embargoed", "test"]
    assert own["start"].tolist()[1:] == own["end"].tolist()[:-1], "nothing between them, nothing twice"
    assert own[own["what"] == "purged"]["bars"].tolist() == [48, 48]


def test_a_border_is_cut_off_around_its_purge():
    segments = [("A", "train", 0, 9_000, 1), ("A", "purged", 9_000, 9_100, 1)]
    segments += [("A", "embargoed", 9_100, 9_900, 1), ("A", "val", 9_900, 20_000, 1), ("A", "test", 21_000, 30_000, 1)]
    shown = pd.DataFrame(border(segments, pd.Timestamp(9_100 * 60, unit="s", tz="UTC")))
    assert shown["what"].tolist() == ["train", "purged", "embargoed", "val"]
    assert (shown["start"].min(), shown["end"].max()) == (8_800, 10_100)


def test_splits_made_elsewhere_have_no_cuts_and_no_gaps(files):
    paths, judged, runs = files
    report = read_json(paths.splits / "split.json")
    del report["cuts"], report["symbols"]
    report["source"] = "splits"
    for split in report["splits"].values():
        for part in split.values():
            del part["purged"], part["embargoed"]
    write_json(paths.splits / "split.json", report)
    audit = read_json(paths.audit)
    audit["checks"].append({"name": "the scaler is fitted on train alone", "skipped": "needs raw bars"})
    write_json(paths.audit, audit)
    html = render(read_page(paths, judged, runs, MODELS))
    assert "splits made elsewhere" in html
    assert '<span class="chip noise">skipped</span><span class="words">Needs raw bars.</span>' in html
    assert "Before and after the cut" not in html
    assert "Gaps in the bars" not in html


def test_audit_in_words():
    words = in_words({"changed_values": 1200, "label": {"feature": "x", "score": 0.7128715}})
    assert words == "changed values 1,200; label: feature x, score 0.7129"


# provenance


def test_provenance_names_data_settings_code_and_versions(files):
    paths, _, _ = files
    found = read_provenance(paths, ["xgboost_h5", "ensemble_h5"])
    assert found.data == {"data/raw/bars.parquet": hashlib.sha256(b"bars").hexdigest()}
    assert found.libraries == {"numpy": "2.4.6", "xgboost": "3.2.0"}
    assert [origin.name for origin in found.origins] == [
        "prepare",
        "audit",
        "window",
        "evaluate",
        "compare",
        "xgboost_h5",
    ]
    before = found.origins[-1]
    spec = load_yaml(paths.spec("xgboost_h5"))
    spec["config"] = dict(reversed(spec["config"].items()))
    paths.spec("xgboost_h5").write_text(dump_yaml(spec))
    assert read_provenance(paths, ["xgboost_h5"]).origins[-1] == before, "the order of keys says nothing"
    spec["config"]["max_depth"], spec["code"]["barcast.models"] = 5, "2" * 16
    paths.spec("xgboost_h5").write_text(dump_yaml(spec))
    after = read_provenance(paths, ["xgboost_h5"]).origins[-1]
    assert after.settings != before.settings
    assert after.code != before.code


def test_a_spec_must_be_there(files):
    paths, _, _ = files
    paths.spec("audit").unlink()
    with pytest.raises(ConfigError, match=r"audit.yaml: no such file"):
        read_provenance(paths, [])


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path):
    for name, files in {"a": {"x": "1", "y": "2"}, "b": {"y": "2", "x": "1"}, "c": {"x": "2", "y": "1"}}.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "b") != hash_of(tmp_path / "c")


# for dvc plots


def test_dvc_gets_confusion_by_cell_and_curves_by_horizon(files, page, tmp_path):
    _, _, runs = files
    write_dvc_plots(tmp_path / "plots", list(page.cells.values()), runs)
    confusion = tmp_path / "plots/confusion"
    assert {file.stem for file in confusion.iterdir()} == set(page.cells)
    assert (confusion / "xgboost_h5.csv").read_bytes() == (runs["xgboost_h5"] / "plots/test_confusion.csv").read_bytes()
    curves = pd.read_csv(tmp_path / "plots/learning/h20.tsv", sep="\t")
    assert list(curves) == ["cell", "step", "val_log_loss"]
    assert set(curves["cell"]) == {"logistic_h20", "xgboost_h20"}, "the prior is fitted in one step"
    history = read_json(runs["xgboost_h20"] / "checkpoints/model/model.json")["training_history"]
    own = curves[curves["cell"] == "xgboost_h20"]
    assert own["val_log_loss"].tolist() == pytest.approx([entry["val_log_loss"] for entry in history], abs=1e-5)
