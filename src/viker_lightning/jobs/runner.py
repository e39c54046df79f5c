"""Runs the cells of a grid side by side: over the GPUs there are, or over the processor's cores."""

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from viker_lightning.errors import UserError
from viker_lightning.storage.secrets import hide
from viker_lightning.terminal.progress import Pace, clock, quiet, silent
from viker_lightning.terminal.shown import Plain

from .fork_server import fork_server
from .job import Job, State
from .processes import by_itself, cores

AnyJob = TypeVar("AnyJob", bound=Job)


def job_environments(jobs: int | None) -> list[dict[str, str]]:
    """An environment for each of the cells that run at the same time.

    Args:
        jobs: how many; by default one a GPU, or one a core without GPU (small models gain nothing from more threads).

    Returns:
        With GPUs, ``CUDA_VISIBLE_DEVICES`` goes round those this process may see; without, threads are shared out.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs: found {jobs}, expected 1 or more")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    gpus = devices if torch.cuda.is_available() else []
    count = jobs or len(gpus) or cores()
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]
    return [{"OMP_NUM_THREADS": str(max(1, cores() // count))} for _ in range(count)]


def run_jobs(
    cells: Sequence[AnyJob], jobs: int | None = None, console: Console | None = None, what: str = "runs"
) -> list[AnyJob]:
    """Runs what is not finished. A cell that fails stops no other; Ctrl-C has all save and stop, to be resumed.

    A terminal shows a bar; a pipe gets a line every few seconds, later more rarely, and one as each cell ends.

    Args:
        cells: in the order they are to be started.
        jobs: how many at a time; see :func:`job_environments`.
        console: where progress is shown.
        what: they are, as a plural.

    Returns:
        The cells that failed.
    """
    console = console or Plain()
    left = [cell for cell in cells if cell.state() != State.FINISHED]
    if not left:
        console.print(f"all {len(cells)} {what} are finished already")
        return []
    free: queue.Queue[dict[str, str]] = queue.Queue()
    environments = job_environments(jobs)
    for environment in environments:
        free.put(environment)
    stop = threading.Event()
    at_work: list[AnyJob] = []

    def work(cell: AnyJob) -> str:
        """What went wrong; empty if nothing."""
        environment = free.get()
        at_work.append(cell)
        try:
            state = cell.state() if stop.is_set() else cell.run(environment | where, stop)
            return "" if state == State.FINISHED else cell.complaint()
        except Exception as error:  # its files cannot be read or written, say; the others go on
            return hide(f"{type(error).__name__}: {error}")
        finally:
            at_work.remove(cell)
            free.put(environment)

    shown = _Shown(len(left), what, len(environments), console)
    with _loaded_once(environments, len(left)) as where, shown, ThreadPoolExecutor(len(environments)) as pool:
        running: dict[Future[str], AnyJob] = {}
        failed = []
        try:
            running |= {pool.submit(work, cell): cell for cell in left}
            while running:
                done, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                shown.look(at_work)
                for future in done:
                    cell = running.pop(future)
                    if wrong := future.result():
                        failed.append(cell)
                        console.print(f"failed: {cell.title}: {wrong}", soft_wrap=True)
                    shown.ended(cell)
        except BaseException:
            stop.set()  # what leaves here waits for the pool
            for future in running:
                future.cancel()
            raise
    return failed


def _loaded_once(environments: Sequence[Mapping[str, str]], count: int) -> AbstractContextManager[dict[str, str]]:
    """A fork server for several runs on a processor; on a GPU a run is long, and CUDA outlives no fork."""
    if count < 2 or torch.cuda.is_available():
        return nullcontext({})
    return fork_server({**by_itself(os.environ), **environments[0]})


class _Shown:
    """How far a grid is: a bar in a terminal; elsewhere a line every few seconds, and one as each of its jobs ends."""

    def __init__(self, total: int, what: str, together: int, console: Console) -> None:
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        ]
        columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
        own = Column(no_wrap=True, overflow="ellipsis")
        columns += [TextColumn("{task.fields[now]}", markup=False, table_column=own)]
        self._bar = Progress(*columns, console=console, disable=quiet())
        self._task = self._bar.add_task(what, total=total, now="")
        self._total, self._what, self._together, self._console = total, what, together, console
        self._done, self._pace = 0, Pace()

    def __enter__(self) -> None:
        self._bar.start()
        self._line(f"{self._total} {self._what}, {min(self._together, self._total)} at a time")

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def look(self, at_work: Sequence[Job]) -> None:
        """What is at work now, and how far each is."""
        stages = [(job.title, job.stage()) for job in [*at_work]]
        now = "; ".join(f"{title}: {stage}" if stage else title for title, stage in stages)
        self._bar.update(self._task, now=now)
        if self._pace.due():
            self._line(f"{self._far()}; {now}")

    def ended(self, job: Job) -> None:
        """One more is done, or has failed."""
        self._done += 1
        self._bar.advance(self._task)
        self._line(f"{self._far()}; {job.title} has ended")

    def _far(self) -> str:
        """As in ``2 of 9 runs, 1:05 elapsed, about 3:40 left``."""
        gone, left = self._pace.gone, self._total - self._done
        ahead = f", about {clock(gone / self._done * left)} left" if self._done and left else ""
        return f"{self._done} of {self._total} {self._what}, {clock(gone)} elapsed{ahead}"

    def _line(self, text: str) -> None:
        if quiet() and not silent():
            print(text, file=self._console.file, flush=True)
