"""Answers to files larger than memory: some rows at a time, with as many before them as any answer can feel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from barcast.data.bars import check_bars, list_files, stream_file, unknown_symbol
from barcast.errors import ConfigError, DataError
from barcast.files import atomic_file
from barcast.serving.predictor import Predictor, split_symbols

SUFFIXES = (".parquet", ".csv")


def predict_file(predictor: Predictor, source: Path, out: Path, chunk_rows: int) -> dict[str, int]:
    """Answer every bar of a file, or of a folder with one file a symbol, as `Predictor.predict` answers a table.

    Neither the answers nor their order, which is that of the bars, depend on `chunk_rows`: of boosters and baselines
    to the last bit, of networks but for rounding (within 1e-6).

    Args:
        predictor: the served model.
        source: Parquet or CSV; each symbol's rows ascend in time, symbols may lie one after the other or mixed.
        out: written whole or not at all, as Parquet or CSV, into a folder that is there and apart from the bars.
        chunk_rows: bars held at a time, beside the last ones of each symbol.

    Returns:
        How many bars of each symbol were answered.

    Raises:
        ConfigError: `out` is neither .parquet nor .csv, would replace or join the bars, or has no folder to lie in.
        DataError: there are no bars, or as `Predictor.predict`, naming file and row.
    """
    _check_paths(source, out)
    answerer = _Answerer(predictor)
    with atomic_file(out) as temporary, _Writer(temporary, out.suffix) as writer:
        for file, bars in _chunks(source, predictor, chunk_rows):
            writer.write(answerer.answer(bars, str(file)))
        answerer.finish(str(source))
    return answerer.answered


def _check_paths(source: Path, out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: answers are written as {' or '.join(SUFFIXES)}; give the file one of these endings")
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; give the path of a file of bars, or of a folder of them")
    bars, target = source.resolve(), out.resolve()
    if bars == target or (out.exists() and out.samefile(source)):
        raise ConfigError(f"{out}: these are the bars that are to be answered; give the answers a file of their own")
    if bars.is_dir() and target.is_relative_to(bars):
        raise ConfigError(f"{out}: lies in the folder of the bars, {source}; write the answers to another folder")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}; make it first, or correct the path")


def _chunks(source: Path, predictor: Predictor, rows: int) -> Iterator[tuple[Path, pd.DataFrame]]:
    """Bars in the common form with their row numbers, each symbol of one file alone."""
    known = predictor.config.symbols
    origin: dict[str, Path] = {}
    for file in list_files(source):
        for bars, present in stream_file(file, known, file.stem if source.is_dir() else None, rows):
            for symbol in sorted(present):
                if symbol not in known:
                    raise unknown_symbol(str(file), symbol, known)
                if origin.setdefault(symbol, file) != file:
                    first = origin[symbol].name
                    raise DataError(f"{source}: symbol '{symbol}' stands in {first} and {file.name}; keep one")
            if len(bars):
                yield file, bars


class _Answerer:
    """Keeps the last bars of each symbol, and answers what follows them."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._kept: dict[str, pd.DataFrame] = {}
        self._seen: dict[str, int] = {}
        self.answered: dict[str, int] = {}

    def answer(self, bars: pd.DataFrame, file: str) -> pd.DataFrame:
        """The answers to bars that follow those of the calls before."""
        news = {str(part["symbol"].iloc[0]): part for part in split_symbols(bars)}
        before = [kept.tail(1) for symbol, kept in self._kept.items() if symbol in news]
        check_bars(pd.concat([*before, bars]), file)
        wholes = []
        for symbol, new in news.items():
            whole = pd.concat([self._kept[symbol], new]) if symbol in self._kept else new
            self._check_length(symbol, whole, len(new), file)
            self._kept[symbol] = whole.tail(self._predictor.config.exact_bars - 1)
            wholes.append(whole)
        answers, counts = self._predictor.answer(wholes, [len(new) for new in news.values()])
        for symbol, count in zip(news, counts, strict=True):
            if count:
                self.answered[symbol] = self.answered.get(symbol, 0) + count
        return answers

    def finish(self, source: str) -> None:
        """Refuse what `Predictor.predict` refuses for want of bars.

        Raises:
            DataError: naming the symbol.
        """
        for symbol, seen in sorted(self._seen.items()):
            if seen < self._predictor.config.needed_bars:
                raise DataError(f"{source}: {self._predictor.too_few(symbol, seen)}")
            if symbol not in self.answered:
                raise DataError(f"{source}: {self._predictor.explain_gap(self._kept[symbol])}")

    def _check_length(self, symbol: str, whole: pd.DataFrame, new: int, file: str) -> None:
        """Once a symbol, as soon as its usual spacing is certain."""
        before = self._seen.get(symbol, 0)
        self._seen[symbol] = before + new
        if before < self._predictor.config.needed_bars <= before + new:
            self._predictor.check_length(whole, file)


class _Writer(AbstractContextManager["_Writer"]):
    """Appends answers to a Parquet or CSV file."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._path, self._suffix = path, suffix
        self._parquet: pq.ParquetWriter | None = None
        self._started = False

    def write(self, answers: pd.DataFrame) -> None:
        if answers.empty:
            return
        if self._suffix == ".csv":
            answers.to_csv(self._path, mode="a", header=not self._started, index=False)
        else:
            table = pa.Table.from_pandas(answers, preserve_index=False)
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._parquet.write_table(table)
        self._started = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parquet is not None:
            self._parquet.close()
