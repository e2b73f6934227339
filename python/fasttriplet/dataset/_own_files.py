"""The files that a run reads, over which it must not write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from fasttriplet.dataset._index_cache import IndexCache, cache_beside
from fasttriplet.dataset._options import Cache
from fasttriplet.errors import OptionError


def files_read(recs: Iterable[Path], cache: Cache) -> dict[Path, str]:
    """The files of a dataset, with words for what they are."""
    read = dict[Path, str]()
    for rec in filter(Path.is_file, recs):
        # By name, too: the index is cached during a run, and a new .idx would be believed in the next.
        read |= dict.fromkeys((rec, rec.with_suffix(".idx")), "the dataset")
        tables = (rec.with_suffix(".identities.csv"), rec.with_suffix(".sources.parquet"))
        read |= dict.fromkeys(tables, "a table of the dataset")
        places = [cache_beside(rec)]
        if place := IndexCache.of(rec, cache):
            places.append(place.path)
        read |= dict.fromkeys(places, "the dataset's index")
    return read


def check_not_read(target: Path, read: Mapping[Path, str]) -> None:
    """Raise an OptionError if a file of the output is one that the run reads."""
    for path, what in read.items():
        same = path.exists() and target.exists() and path.samefile(target)
        if same or os.path.realpath(path) == os.path.realpath(target):
            raise OptionError("out", f"must be another file than {what}, not {str(target)!r}")
