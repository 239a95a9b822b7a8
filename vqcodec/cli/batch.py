"""Many files in one go: which files, under which names, in how many processes.

::

    INPUTS, files and folders ──plan──▶ tasks: source ▶ target ──run_batches──▶ outcomes, in the order of the tasks
                                 │                                   │
                  raises before any work if names           here, one batch at a time, or in N worker processes,
                  clash or outputs exist                    each of which loads its own models

The outcome of a task is what the work on it returned, or a :class:`Failure`, which does not affect the other tasks.
"""

import contextlib
import os
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vqcodec.cli.jobs import Coder, Task
from vqcodec.errors import DeviceError, UnknownModelError, VqcodecError, WeightsError, explain
from vqcodec.files.streams import mistaken
from vqcodec.workers import at_work

__all__ = ["Failure", "plan", "run_batches"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Failure:
    """Why there is no output, in one line that names the file."""

    reason: str


def plan(sources: Sequence[str], output: str | None, coder: Coder, *, force: bool) -> list[Task]:
    """The tasks for ``sources``, files and folders, in their order; creates the folders of the outputs.

    An output lies in the folder ``output``, in the same subfolder as its input has inside a source, or next to its
    input if ``output`` is None. A file that is given twice makes one task.

    Raises VqcodecError, before it creates a folder, if a folder holds no inputs, two inputs map to the same output, or
    an output is an input, a folder or, without ``force``, an existing file.
    """
    tasks: dict[str, Task] = {}
    for task in _tasks(sources, output, coder):
        first = tasks.setdefault(os.path.realpath(task.target), task)
        if os.path.realpath(first.source) != os.path.realpath(task.source):
            raise VqcodecError(f"{first.source} and {task.source} would both be written to {task.target}")
    _check_outputs(list(tasks.values()), force)
    if output is not None:  # otherwise a missing folder is that of a missing input
        for folder in dict.fromkeys(os.path.dirname(task.target) for task in tasks.values()):
            try:
                os.makedirs(folder or ".", exist_ok=True)
            except OSError as error:
                raise VqcodecError(f"{folder}: cannot be made: {error.strerror}") from None
    return list(tasks.values())


def run_batches(
    work: Callable[[Sequence[Task]], Sequence[_T]], batches: Sequence[Sequence[Task]], processes: int
) -> Generator[_T | Failure, None, None]:
    """Call ``work(batch)`` for each of ``batches`` and yield the outcomes of their tasks, in order, as they come.

    If ``work`` raises an exception for a batch, it is called again for each of its tasks alone. With more than one of
    ``processes``, worker processes get copies of ``work``; they end with this generator and with this process.

    Raises the WeightsError or DeviceError that ``work`` raises, since no other task could be done either, except for
    UnknownModelError, which concerns one file; VqcodecError if a worker process has died.
    """
    if processes == 1:
        for batch in batches:
            yield from _attempt(work, batch)
        return
    with at_work(partial(_attempt, work), batches, processes) as outcomes:
        for outcome in outcomes:
            yield from outcome.result()


def _tasks(sources: Sequence[str], output: str | None, coder: Coder) -> Iterator[Task]:
    for source in sources:
        path = Path(source)
        if os.path.isdir(source):
            for file in coder.inputs(path):
                yield Task(str(file), _target(path, file, output, coder.suffix))
        else:
            yield Task(source, _target(path.parent, path, output, coder.suffix))


def _target(folder: Path, file: Path, output: str | None, suffix: str) -> str:
    inside = file.relative_to(folder)
    return str((folder if output is None else Path(output)) / inside.parent / f"{inside.stem}{suffix}")


def _check_outputs(tasks: Sequence[Task], force: bool) -> None:
    inputs = {_identity(task.source) for task in tasks}
    existing: list[str] = []
    for task in tasks:
        if (identity := _identity(task.target)) is None:
            continue
        if os.path.isdir(task.target):
            raise VqcodecError(f"{task.target}: is a folder, expected the name of an output file")
        if identity in inputs:
            problem = (
                mistaken(task.target, Path(task.target).suffix) or "is an input, expected another name for the output"
            )
            raise VqcodecError(f"{task.target}: {problem}")
        if os.path.isfile(task.target):
            existing.append(task.target)
    if existing and not force:
        others = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise VqcodecError(f"{existing[0]}: exists already{others} (-f overwrites)")


def _identity(name: str) -> tuple[int, int] | None:
    """The same for all names of one file; None if there is no file."""
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _attempt(work: Callable[[Sequence[Task]], Sequence[_T]], batch: Sequence[Task]) -> list[_T | Failure]:
    if len(batch) > 1:
        # One damaged file, or too little memory for all together, must not cost the others their output.
        with contextlib.suppress(Exception):
            return [*work(batch)]
        return [outcome for task in batch for outcome in _attempt(work, [task])]
    try:
        return [*work(batch)]
    except Exception as error:
        if isinstance(error, DeviceError | WeightsError) and not isinstance(error, UnknownModelError):
            raise
        if os.environ.get("VQCODEC_DEBUG"):
            traceback.print_exc()
        reason, source = explain(error), batch[0].source
        named = isinstance(error, VqcodecError) or reason.startswith(f"{source}: ")
        return [Failure(reason if named else f"{source}: {reason}")]
