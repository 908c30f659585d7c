"""A plan of stages: what each needs, whether it is done, and running what is left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fevertools.train.datasets.ferplus import FerPlus


@dataclass(frozen=True, slots=True)
class Setup:
    """What all stages share."""

    data: FerPlus | None  # FER-2013 with FER+; None where no stage learns from it or is measured on it
    root: Path  # data folder, in which other sets are looked for
    runs: Path  # folder of the runs
    device: str = "auto"  # accelerator for Lightning Fabric
    workers: int = 1  # processes that prepare batches


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the plan."""

    title: str
    work: float  # relative cost, million pixels through networks; 0 where it takes no more than minutes
    done: Callable[[], bool]
    run: Callable[[], object]


def run_stages(stages: Sequence[Stage]) -> None:
    """Print the plan, then run what is left of it, with the time that the rest will take."""
    for number, stage in enumerate(stages, start=1):
        print(f"{number}/{len(stages)} {stage.title}{': done' if stage.done() else ''}")
    spent, worked = 0.0, 0.0
    for number, stage in enumerate(stages, start=1):
        if stage.done():
            continue
        left = sum(s.work for s in stages[number - 1 :] if not s.done())
        hours = f", about {left * spent / worked / 3600:.1f} hours left" if worked > 0 else ""
        print(f"== {number}/{len(stages)} {stage.title}{hours}", flush=True)
        began = time.monotonic()
        stage.run()
        if stage.work > 0:
            spent, worked = spent + time.monotonic() - began, worked + stage.work
