"""The stage that makes the three split files, from bars or from splits made elsewhere."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from barcast.config import validate
from barcast.data import features
from barcast.data.features import compute_features, feature_names, warmup_bars
from barcast.data.frames import SPLITS, label_columns
from barcast.data.labels import label_bars
from barcast.data.scaler import Scaler
from barcast.data.synthetic import synthetic_bars, synthetic_splits, write_splits
from barcast.errors import DataError, LeakageError
from barcast.files import read_json
from barcast.paths import Paths
from barcast.stages import prepare as stage
from barcast.stages.prepare import PrepareConfig, prepare

SYMBOLS, HORIZONS = ["AAA", "BBB"], [5, 20]
GROUPS = ("returns", "candles", "trend", "momentum", "volatility", "volume", "regime", "calendar")


def settings(source="bars", path="bars.parquet", symbols=SYMBOLS, embargo=30, purge=12):
    return {
        "symbols": symbols,
        "horizons": HORIZONS,
        "data": {
            "source": source,
            "path": path,
            "features": {"units": "atr", **dict.fromkeys(GROUPS, True)},
            "scaler": {"kind": "robust", "clip": 5.0},
        },
        "label": {
            "atr_period": 14,
            "horizons": {
                "h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": 6},
                "h20": {"k_up": 2.0, "k_down": 2.0, "max_bars": 12},
            },
            "symbols": {},
        },
        "split": {"train": 0.7, "val": 0.15, "test": 0.15, "purge_bars": purge, "embargo_bars": embargo},
    }


def run(root, **changes):
    prepare(validate(PrepareConfig, settings(**changes), "prepare.yaml", "config"), Paths(root))
    return {name: pd.read_parquet(root / f"data/splits/scaled/{name}_scaled.parquet") for name in SPLITS}


@pytest.fixture(scope="module")
def bars():
    whole = synthetic_bars(SYMBOLS, 900, seed=5)
    return whole.drop(index=[300, 301, 302, 1300]).reset_index(drop=True)  # a gap in each symbol


@pytest.fixture(scope="module")
def prepared(bars, tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    bars.to_parquet(root / "bars.parquet", index=False)
    return root, run(root)


def test_the_files_have_the_form_of_splits_made_elsewhere(prepared):
    root, splits = prepared
    config = validate(PrepareConfig, settings(), "x")
    names = feature_names(config.data.features)
    assert len(names) == sum(len(group.features) for group in features._GROUPS.values())
    labels = [name for horizon in HORIZONS for name in label_columns(horizon)]
    for split in splits.values():
        expected = ["datetime", "symbol", "open", "high", "low", "close", "volume", *names, *labels]
        assert list(split.columns) == expected
        assert split[names].dtypes.eq(np.float32).all()
        assert split[names].notna().all(axis=None)
        assert split[names].abs().max(axis=None) <= 5
        assert split["datetime"].dtype == "datetime64[ns, UTC]"
        assert split["label_h5"].dtype == "Int8"
        order = pd.MultiIndex.from_frame(split[["symbol", "datetime"]])
        assert order.is_unique
        assert order.is_monotonic_increasing
    assert sorted(file.name for file in (root / "data/splits/scaled").iterdir()) == [
        "scaler.json",
        "split.json",
        *sorted([*(f"{name}_scaled.parquet" for name in SPLITS), "train_clipped.parquet"]),
    ]


def test_the_values_are_those_of_the_plain_route(prepared, bars):
    root, splits = prepared
    config = validate(PrepareConfig, settings(), "x")
    scaler = Scaler.from_dict(read_json(root / "data/splits/scaled/scaler.json"))
    assert scaler == Scaler.fit(unscaled(splits["train"], bars, config), config.data.scaler)
    for split in splits.values():
        scaled = scaler.transform(unscaled(split, bars, config))
        pd.testing.assert_frame_equal(split[scaled.columns.tolist()], scaled)
        for symbol, own in split.groupby("symbol"):
            raw = bars[bars["symbol"] == symbol].reset_index(drop=True)
            labels = label_bars(raw, config.label, symbol, HORIZONS)
            kept = raw["datetime"].isin(own["datetime"])
            expected = pd.concat([raw, labels], axis=1)[kept].reset_index(drop=True)
            pd.testing.assert_frame_equal(own[expected.columns.tolist()].reset_index(drop=True), expected)


def unscaled(split, bars, config):
    parts = []
    for symbol, own in split.groupby("symbol"):
        raw = bars[bars["symbol"] == symbol].reset_index(drop=True)
        parts.append(compute_features(raw, config.data.features)[raw["datetime"].isin(own["datetime"])])
    return pd.concat(parts, ignore_index=True)


def test_the_report_states_warmup_and_gaps(prepared, bars):
    root, splits = prepared
    report = read_json(root / "data/splits/scaled/split.json")
    warmup = warmup_bars(validate(PrepareConfig, settings(), "x").data.features)
    content = report["symbols"]["AAA"]
    assert (content["bars"], content["warmup"]) == (897, warmup)
    start, end = bars["datetime"].iloc[[299, 300]]
    assert content["gaps"] == {
        "count": 1,
        "missing_bars": 3,
        "longest": {"start": start.isoformat(), "end": end.isoformat(), "missing_bars": 3},
    }
    assert report["symbols"]["BBB"]["gaps"]["missing_bars"] == 1
    assert {name: sum(c["rows"] for c in report["splits"][name].values()) for name in SPLITS} == {
        name: len(split) for name, split in splits.items()
    }
    assert report["splits"]["train"]["AAA"]["purged"] == 12
    assert report["splits"]["val"]["AAA"]["embargoed"] == 30
    train = splits["train"]
    assert report["splits"]["train"]["AAA"]["first"] == bars["datetime"].iloc[warmup].isoformat()
    assert train["datetime"].max() < pd.Timestamp(report["cuts"]["val"]) < splits["val"]["datetime"].min()


def test_the_same_bars_give_the_same_bytes_and_the_summary_is_printed(prepared, bars, tmp_path, capsys):
    bars.to_parquet(tmp_path / "bars.parquet", index=False)
    run(tmp_path)
    for file in (prepared[0] / "data/splits/scaled").iterdir():
        assert (tmp_path / "data/splits/scaled" / file.name).read_bytes() == file.read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("AAA: 897 bars, 200 of them warm-up, 1 gap, the longest of 3 bars after 2015-")
    assert [line.split(":")[0] for line in lines] == ["AAA", "BBB", "train", "val", "test"]


def test_a_failure_leaves_the_last_good_result(prepared, bars, tmp_path):
    bars.to_parquet(tmp_path / "bars.parquet", index=False)
    run(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "data/splits/scaled").iterdir()}
    with pytest.raises(DataError, match=r"AAA: 0 rows are left in val, .*split\.embargo_bars \(500\)"):
        run(tmp_path, embargo=500)
    assert {file.name: file.read_bytes() for file in (tmp_path / "data/splits/scaled").iterdir()} == before
    assert sorted(file.name for file in (tmp_path / "data/splits").iterdir()) == ["scaled"]


def test_a_short_purge_is_refused_before_the_bars_are_read(tmp_path):
    with pytest.raises(LeakageError, match=r"split\.purge_bars = 11: expected at least 12"):
        run(tmp_path, purge=11)


def test_too_few_bars_are_refused(tmp_path):
    synthetic_bars(SYMBOLS, 150, seed=5).to_parquet(tmp_path / "bars.parquet", index=False)
    with pytest.raises(
        DataError, match=r"symbol 'AAA' has 150 rows, the warm-up of 200 bars and three splits needs 203"
    ):
        run(tmp_path)


def test_a_feature_that_is_not_finite_is_named(bars, tmp_path, monkeypatch):
    def broken(own, config, last):
        computed = compute_features(own, config, last)
        if own["symbol"].iloc[0] == "BBB":
            computed.loc[400, "ret_2_atr"] = 1e300  # more than float32 holds
        return computed

    monkeypatch.setattr(features, "compute_features", broken)
    bars.to_parquet(tmp_path / "bars.parquet", index=False)
    with pytest.raises(DataError, match=r"BBB 2015-.*: feature 'ret_2_atr' is inf, expected a finite number"):
        run(tmp_path)


def test_splits_made_elsewhere_stay_unchanged(tmp_path):
    made = synthetic_splits(seed=2, n_rows=(200, 60, 61), symbols=SYMBOLS)
    write_splits(made, tmp_path / "theirs")
    splits = run(tmp_path, source="splits", path="theirs")
    for name in SPLITS:
        assert splits[name].shape == (len(made[name]), 126)
        pd.testing.assert_frame_equal(splits[name], made[name], check_dtype=False)
    report = json.loads((tmp_path / "data/splits/scaled/split.json").read_text())
    assert report["source"] == "splits"
    own = made["val"][made["val"]["symbol"] == "BBB"]
    content = report["splits"]["val"]["BBB"]
    assert (content["rows"], content["labels"]["h5"]["labelled"]) == (len(own), len(own))
    assert content["first"] == own["datetime"].min().isoformat()
    assert not (tmp_path / "data/splits/scaled/scaler.json").exists()


def test_the_stage_reads_its_spec(bars, tmp_path, monkeypatch, capsys):
    bars.to_parquet(tmp_path / "bars.parquet", index=False)
    monkeypatch.chdir(tmp_path)
    Paths().specs.mkdir(parents=True)
    spec = {"stage": "prepare", "config": settings(), "code": {}, "libraries": {}}
    Paths().spec("prepare").write_text(yaml.safe_dump(spec))
    stage.main()
    assert (tmp_path / "data/splits/scaled/train_scaled.parquet").is_file()
    assert "train: 2015-" in capsys.readouterr().out
