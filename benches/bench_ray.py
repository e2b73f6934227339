"""What Ray costs on one machine: the same run by the threads of a process, and as tasks of a Ray cluster.

Both cases take about a minute on two cores. "whole" mines separated rows, 5 of each identity, at once, from a
file of embeddings; "bags" decodes pictures that the bench draws, shrinks them (`pixels`) and mines bags of
7,200. The Ray run starts Ray on this machine and ends it (`--ray local`), with a CPU for each task, and that
time counts; what it takes alone is in the row "started and ended".
"""

from __future__ import annotations

import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fasttriplet as ft
from bench_whole import MARGIN, write
from data import BAG, draw_faces, write_dataset
from harness import Bench
from process import Way
from tables import Table

PLAIN, RAY, IDLE = "in this process", "on Ray", "started and ended"

bench = Bench(__file__, __doc__, rounds=2, packages=["ray"])
bench.option("--rows", 250_000, "of the file of embeddings", quick=1_000)
bench.option("--dim", 512, "columns of it", quick=32)
bench.option("--images", 4 * BAG, "of the dataset that is mined in bags", quick=400)
bench.option("--bag-size", BAG, "images of a bag", quick=100)
bench.option("--epochs", 24, "passes over that dataset", quick=2)


def ways(rec: str, how: dict[str, Any]) -> dict[str, Way]:
    def run(ray: str | None) -> Any:
        out = Path(rec).with_name("t.parquet")
        return ft.mine_rec(rec, out=out, overwrite=True, ray=ray, **how)

    def idle() -> None:
        import ray  # noqa: PLC0415

        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        ray.shutdown()

    def facts(result: Any) -> dict[str, Any]:
        return {"triplets": result.summary.triplets}

    return {
        PLAIN: Way(lambda: run(None), facts=facts),
        RAY: Way(lambda: run("local"), facts=facts),
        IDLE: Way(idle),
    }


def tables(options: Namespace) -> Iterator[Table]:
    table = Table("Seconds of a run")
    folder = Path(tempfile.mkdtemp(prefix="fasttriplet-bench-"))
    try:
        (folder / "whole").mkdir()
        write(folder / "whole", options.rows, options.dim)
        drawn = draw_faces(folder / "drawn.rec")
        rec = write_dataset(drawn, folder / "bags.rec", options.images)
        cases = {
            "whole": (
                folder / "whole" / "train.rec",
                {"model": f"npy:{folder / 'whole' / 'e.npy'}", "bag_size": None, "margin": MARGIN},
            ),
            "bags": (rec, {"model": "pixels", "bag_size": options.bag_size, "epochs": options.epochs}),
        }
        for name, (path, how) in cases.items():
            took = bench.measure(ways, name, warm_up=False, rec=str(path), how=how)
            for way, found in took.items():
                cells = {"seconds": found.best, "ratio": found.over(took[PLAIN])}
                table.rows[f"{name}: {way}"] = cells | dict(found.facts)
    finally:
        shutil.rmtree(folder)
    yield table


if __name__ == "__main__":
    bench.main(tables)
