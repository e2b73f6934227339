"""From the images of bags to rows of triplets: by the threads of this process, or in other processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from numpy import float32
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._files import placing
from fasttriplet._metadata import as_parquet, read_metadata
from fasttriplet._words import counted
from fasttriplet.embedders._base import Started, one_ahead
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.mining._mine import MiningStats
from fasttriplet.run._machines import Machines, Needs
from fasttriplet.run._stages import NICE, Images, Mined, Outcome, Part, Stages
from fasttriplet.run._work_folder import WorkFolder
from fasttriplet.run._worker import Ahead, Worker

# Of a triplet on its way to the output: three positions, what is looked up for each, and two distances.
_BYTES = 3 * (8 + 20) + 3 * 8
_KIND = "triplets of a bag"
_WORK = ("skipped", "seconds", "without_negative")  # of a bag's summary, besides its outcome

Embeddings = list[tuple[pl.DataFrame, NDArray[float32]]]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The triplets of a bag."""

    outcome: Outcome
    triplets: pl.DataFrame | Path  # as rows of the output, or a Parquet file of these


def frame(mined: Mined) -> pl.DataFrame:
    """The triplets as rows of the output."""
    triplets, rows = mined.triplets, mined.rows.select(pl.col("^(key|label|file)$"))
    _core.probe_memory(_BYTES * len(triplets), f"the output's rows of {counted(len(triplets), 'triplet')}")
    anchor, positive, negative = (rows[at] for at in mined.positions())
    roles = {"anchor": anchor, "positive": positive, "negative": negative}
    columns = {
        "epoch": pl.repeat(mined.epoch, len(triplets), dtype=pl.Int32, eager=True),
        "bag": pl.repeat(mined.bag.number, len(triplets), dtype=pl.Int32, eager=True),
        **{f"{role}_key": of_role["key"] for role, of_role in roles.items()},
        "anchor_label": anchor["label"],
        "negative_label": negative["label"],
        "d_ap": triplets.d_ap,
        "d_an": triplets.d_an,
    }
    if "file" in rows.columns:
        columns |= {f"{role}_file": of_role["file"] for role, of_role in roles.items()}
    return pl.DataFrame(columns)


# In this process


@dataclass(slots=True)
class Threads:
    """While a part is embedded, the next ones are decoded, and the bag before is mined.

    `report` is called with each part when it is embedded; `embedded` counts the images so far. Unless it
    `explains`, nothing says why pairs have no negative.
    """

    stages: Stages
    report: Callable[[Part], object]
    explains: bool = True
    embedded: int = 0
    part: Part = field(init=False)  # the last one that was embedded

    def through(self, parts: Generator[tuple[Part, Images], None, None]) -> Iterator[Found]:
        """Take bags through, in parts of at most ``stages.part_size`` images."""
        stages = self.stages
        depth = stages.depth(stages.part_size)
        of_bag: Embeddings = []
        mining: Future[Found] | None = None
        with Worker("decode", nice=NICE) as decoder, Worker("mine", nice=NICE) as miner:
            for part, embeddings in self._embedded(Ahead(decoder, parts, depth, stages.waiting_for_images)):
                if embeddings is not None:
                    of_bag.append((part.rows, embeddings))
                    self.embedded += part.rows.height
                self.part = part
                if mining is not None and (part.last or mining.done()):
                    yield self._result(miner, mining)
                    mining = None
                self.report(part)
                if part.last:
                    mining = miner.submit(self._mine, part, of_bag)
                    of_bag = []
            if mining is not None:
                yield self._result(miner, mining)
                self.report(part)

    def _embedded(
        self, parts: Iterable[tuple[Part, Images]]
    ) -> Generator[tuple[Part, NDArray[float32] | None], None, None]:
        """Embed parts, except those of which no image is left."""
        for part, started in one_ahead(self._begun(parts)):
            yield part, None if started is None else self.stages.embedded(part, part.rows, started)

    def _begun(self, parts: Iterable[tuple[Part, Images]]) -> Iterator[tuple[Part, Started | None]]:
        first = True
        for part, images in parts:
            if first:  # opening the dataset is over
                self.report(part)
            first = False
            started = self.stages.embed(part, part.rows, images) if part.rows.height else None
            del images  # not to be held while waiting for the next
            yield part, started

    def _mine(self, part: Part, of_bag: Embeddings) -> Found:
        """Mine a bag, and make the rows of the output here, where no network waits for it."""
        whole = replace(part, rows=pl.concat([part.bag.rows.clear(), *(rows for rows, _ in of_bag)]))
        explain = self.stages.summary.why_no_triplets is None
        embedded = [some for _, some in of_bag]
        mined = self.stages.mine(whole, embedded, explain=explain, overlapped=True)
        if self.explains:
            self.stages.explain_pairs(mined, embedded)
        return Found(mined.outcome, frame(mined))

    def _result(self, miner: Worker, mining: Future[Found]) -> Found:
        with self.stages.summary.waiting("mine"):
            return miner.result(mining)


# In other processes


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    """A bag's triplets, and what its process did, as they come from there."""

    found: Found
    work: dict[str, Any]  # the fields _WORK of its summary

    def save(self, path: Path) -> None:
        about = {"kind": _KIND, "outcome": asdict(self.found.outcome), "work": self.work}
        assert isinstance(self.found.triplets, pl.DataFrame)
        with placing(path) as file:
            self.found.triplets.write_parquet(file, metadata=as_parquet(about))


def _mine_bag(stages: Stages, job: tuple[Part, bool]) -> _Done:
    """Take one bag through, in whatever process this is; it may be told to explain pairs."""
    summary, (part, explains) = stages.begin_summary(), job
    threads = Threads(stages, lambda _: None, explains)
    [found] = threads.through(stages.parts_of_bag(part, stages.part_size))
    return _Done(found, {name: getattr(summary, name) for name in _WORK})


class OnMachines:
    """Takes bags through on machines, in any order. What is done is kept in a folder.

    Parameters
    ----------
    machines : Machines
    stages : Stages
        Open.
    folder : WorkFolder
        For a file of each bag; those that are there are not mined again.
    report : callable
        Called with the first bag that is not done, before anything is done and whenever one is.

    Attributes
    ----------
    embedded : int
        Images of the bags that are done.
    """

    def __init__(
        self, machines: Machines, stages: Stages, folder: WorkFolder, report: Callable[[Part], object]
    ) -> None:
        self._machines, self._stages, self._folder, self._report = machines, stages, folder, report
        self._done = self.embedded = 0

    def through(self, jobs: Iterable[Part]) -> Iterator[Found]:
        """Mine bags, and give them in their order; their triplets are files of the folder."""
        probe = self._stages.probe(self._machines)
        self._folder.begin({"triplets": self._stages.about(), "embeddings": self._digest()}, probe)
        left, waiting = iter(jobs), deque[Part]()  # parts without their rows
        there: set[Path] = set()
        begun = False

        def take() -> tuple[Part, bool] | None:
            nonlocal begun
            for job in left:
                waiting.append(_without_rows(job))
                if (file := self._file_of(job)).exists():
                    self._count(job)
                    there.add(file)
                    continue
                if not begun:
                    self._report(waiting[0])
                begun = True
                return job, self._stages.summary.without_negative is None
            return None

        stages = self._stages.for_jobs(self._machines.threads, probe)
        for (job, _), done in self._machines.run(_mine_bag, stages, take, Needs(embeds=True)):
            done.save(file := self._file_of(job))
            self._count(job)
            there.add(file)
            first = waiting[0]
            while waiting and (file := self._file_of(waiting[0])) in there:
                first = waiting.popleft()
                there.remove(file)
                yield self._taken(file)
            self._report(waiting[0] if waiting else first)
        for job in waiting:  # all are there: no job was left that is not
            yield self._taken(self._file_of(job))

    def _count(self, job: Part) -> None:
        self._done += 1
        self.embedded += job.rows.height
        self._folder.note(counted(self._done, "bag"))

    def _digest(self) -> str | None:
        """Tells ready embeddings from others in the same file."""
        embedder = self._stages.embedder
        return embedder.table.digest() if isinstance(embedder, PrecomputedEmbedder) else None

    def _taken(self, file: Path) -> Found:
        """Count what a bag's process did."""
        about = read_metadata(file)
        work, outcome = about["work"], about["outcome"]
        self._stages.summary.add(**work)
        return Found(Outcome(**outcome | {"stats": MiningStats(**outcome["stats"])}), file)

    def _file_of(self, job: Part) -> Path:
        return self._folder.place / f"{job.epoch:05}-{job.bag.number:08}.bag"


def _without_rows(job: Part) -> Part:
    none = job.rows.clear()
    return replace(job, rows=none, bag=replace(job.bag, rows=none))
