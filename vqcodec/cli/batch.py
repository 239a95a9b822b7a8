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
import stat
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vqcodec.cli.jobs import Coder, Task
from vqcodec.errors import DeviceError, UnknownModelError, VqcodecError, WeightsError, explain
from vqcodec.files.streams import check_place, mistaken
from vqcodec.workers import at_work

__all__ = ["Failure", "Plan", "inputs", "plan", "run_batches"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Failure:
    """Why there is no output, in one line that names the file."""

    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be done for the sources of a command.

    Attributes:
        tasks: one for each file to code.
        skipped: the tasks whose outputs are made already.
        passed_over: how many files in folders are no inputs, by extension.
        unreadable: one line for each subfolder that cannot be read.
    """

    tasks: list[Task]
    skipped: list[Task]
    passed_over: dict[str, int]
    unreadable: list[str]


def plan(sources: Sequence[str], output: str | None, coder: Coder, *, force: bool, skip: bool = False) -> Plan:
    """The tasks for ``sources``, files and folders, in their order; creates the folders of the outputs.

    An output lies in the folder ``output``, in the same subfolder as its input has inside a source, or next to its
    input if ``output`` is None. Inputs that differ only in their extension keep it: ``a.jpg.vq``, ``a.png.vq``. A file
    that is given twice makes one task. With ``skip``, inputs whose outputs are made already make none.

    Raises VqcodecError, before it creates a folder, if a folder holds no inputs, two inputs map to the same output, or
    an output is an input, a folder or, without ``force`` and ``skip``, an existing file.
    """
    found = _Found()
    for source in sources:
        found.add(source, output, coder)
    tasks = _distinct(found.tasks, coder.suffix)
    skipped = [task for task in tasks if skip and coder.has_made(task.target)]
    left_out = set(skipped)
    tasks = [task for task in tasks if task not in left_out]
    _check_outputs(tasks, force or skip)
    if output is not None:  # otherwise a missing folder is that of a missing input
        for folder in dict.fromkeys(os.path.dirname(task.target) for task in tasks):
            try:
                os.makedirs(folder or ".", exist_ok=True)
            except OSError as error:
                raise VqcodecError(f"{folder}: cannot be made: {error.strerror}") from None
    return Plan(tasks, skipped, found.passed_over, found.unreadable)


def inputs(sources: Sequence[str], coder: Coder) -> tuple[list[str], list[str]]:
    """The files that ``sources`` name or hold, in their order, and one line for each subfolder that cannot be read.

    Raises VqcodecError if a folder holds no inputs.
    """
    found = _Found()
    for source in sources:
        found.add(source, None, coder)
    return [task.source for task in found.tasks], found.unreadable


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


class _Found:
    """The files that the sources of a command name or hold."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.passed_over: dict[str, int] = {}
        self.unreadable: list[str] = []

    def add(self, source: str, output: str | None, coder: Coder) -> None:
        """Add a file, or the inputs in a folder; raises VqcodecError for a folder without any."""
        path = Path(source)
        if not os.path.isdir(source):
            self.tasks.append(Task(source, _target(path.parent, path, output, coder.suffix)))
            return
        taken, unreadable = 0, len(self.unreadable)
        for file in sorted(self._files(path)):
            if coder.takes(file):
                taken += 1
                self.tasks.append(Task(str(file), _target(path, file, output, coder.suffix)))
            elif file.suffix.lower() != ".vq":
                kind = file.suffix.lower() or "no extension"
                self.passed_over[kind] = self.passed_over.get(kind, 0) + 1
        if not taken and len(self.unreadable) == unreadable:
            raise VqcodecError(f"{source.rstrip('/') or source}: holds no {coder.wanted}")

    def _files(self, folder: Path) -> Iterator[Path]:
        for parent, _, names in os.walk(folder, onerror=self._note):
            yield from (path for name in names if _may_be_regular(path := Path(parent, name)))

    def _note(self, error: OSError) -> None:
        self.unreadable.append(f"{error.filename}: cannot be read: {error.strerror}")


def _may_be_regular(path: Path) -> bool:
    """Whether a file is to be tried: one behind a link into a closed folder fails later, and is told of."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def _distinct(tasks: Sequence[Task], suffix: str) -> list[Task]:
    """One task for each file, each with a target of its own; raises VqcodecError where names leave no way."""
    unique = list({os.path.realpath(task.source): task for task in reversed(tasks)}.values())[::-1]
    shared = Counter(os.path.realpath(task.target) for task in unique)
    named: dict[str, Task] = {}
    for task in unique:
        if shared[os.path.realpath(task.target)] > 1:
            task = Task(task.source, str(Path(task.target).with_name(Path(task.source).name + suffix)))
        first = named.setdefault(os.path.realpath(task.target), task)
        if first is not task:
            raise VqcodecError(f"{first.source} and {task.source} would both be written to {task.target}")
    return list(named.values())


def _target(folder: Path, file: Path, output: str | None, suffix: str) -> str:
    inside = file.relative_to(folder)
    return str((folder if output is None else Path(output)) / inside.parent / f"{inside.stem}{suffix}")


def _check_outputs(tasks: Sequence[Task], force: bool) -> None:
    inputs = {_identity(task.source) for task in tasks}
    existing: list[str] = []
    for task in tasks:
        if os.path.islink(task.target):
            check_place(task.target)
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
        raise VqcodecError(f"{existing[0]}: exists already{others}; name a folder with -o, or overwrite with -f")


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
