"""Batches of files: their names, and the processes that work on them. Tests of the command itself are in test_cli_*."""

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from vqcodec.cli.batch import Failure, plan, run_batches
from vqcodec.cli.jobs import Decoder, Encoder, Models, Task
from vqcodec.errors import DeviceError, UnknownModelError, VqcodecError, WeightsError
from vqcodec.files.container import Container, pack
from vqcodec.geometry import BATCH

MODELS = Models(None, "cpu", None)
ENCODER = Encoder(MODELS, 75, effort=0, psnr=False)
DECODER = Decoder(MODELS)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def names(*sources: str, output: str | None = None, force: bool = False) -> list[tuple[str, str]]:
    return [(task.source, task.target) for task in plan(sources, output, ENCODER, force=force).tasks]


# --- names --------------------------------------------------------------------------------------------------------


def test_outputs_lie_below_the_folder_or_next_to_their_inputs(folder: Path) -> None:
    touch("z.png", "in/b.JPG", "in/a.tar.png", "in/more/deep/c.webp", "in/notes.txt")
    inside = ["in/a.tar.png", "in/b.JPG", "in/more/deep/c.webp"]
    below = ["out/all/a.tar.vq", "out/all/b.vq", "out/all/more/deep/c.vq"]
    assert names("z.png", "in/", output="out/all/") == [("z.png", "out/all/z.vq"), *zip(inside, below, strict=True)]
    assert Path("out/all/more/deep").is_dir()
    beside = ["in/a.tar.vq", "in/b.vq", "in/more/deep/c.vq"]
    assert names("./in", "z.png") == [*zip(inside, beside, strict=True), ("z.png", "z.vq")]


def test_only_vq_files_are_decoded(folder: Path) -> None:
    touch("in/a.vq", "in/b.png", "in/more/c.VQ")
    Path("in/folder.vq").mkdir()
    assert plan(["in"], "out", DECODER, force=False).tasks == [
        Task("in/a.vq", "out/a.png"),
        Task("in/more/c.VQ", "out/more/c.png"),
    ]


@pytest.mark.parametrize(("coder", "what"), [(ENCODER, "no images"), (DECODER, r"no \.vq files")])
def test_folders_without_inputs(folder: Path, coder: Encoder | Decoder, what: str) -> None:
    touch("in/notes.txt")
    with pytest.raises(VqcodecError, match=f"^in: holds {what}"):
        plan(["in"], "out", coder, force=False)
    assert not Path("out").exists()


def test_the_same_file_twice_is_one(folder: Path) -> None:
    touch("in/a.png")
    assert names("in", "in/a.png", "./in/../in/a.png", output="out") == [("in/a.png", "out/a.vq")]


def test_what_is_missing_is_left_to_the_work(folder: Path) -> None:
    assert names("gone.png", "", output="out") == [("gone.png", "out/gone.vq"), ("", "out/.vq")]
    assert names("in/gone.png", "gone.png") == [("in/gone.png", "in/gone.vq"), ("gone.png", "gone.vq")]
    assert not Path("in").exists()


@pytest.mark.parametrize(
    ("sources", "output", "first", "second"),
    [
        (["in", "b"], "out", "in/a.png", "b/a.png"),
        (["in/a.png", "b/a.png"], "out", "in/a.png", "b/a.png"),
        (["in/more", "b"], "out", "in/more/a.png", "b/a.png"),
        (["a.png", "b/a.png", "a.jpg"], "out", "a.png", "b/a.png"),
    ],
)
def test_two_files_for_one_name_are_refused(
    folder: Path, sources: list[str], output: str | None, first: str, second: str
) -> None:
    touch("a.png", "a.jpg", "in/a.png", "in/a.jpg", "in/more/a.png", "b/a.png")
    with pytest.raises(VqcodecError, match=rf"^{first} and {second} would both be written to \S*a\.png\.vq$"):
        plan(sources, output, ENCODER, force=True)
    assert not Path("out").exists()


def test_files_that_differ_in_their_extension_keep_it(folder: Path) -> None:
    touch("in/a.jpg", "in/a.png", "in/b.png", "in/more/a.gif")
    assert names("in", output="out") == [
        ("in/a.jpg", "out/a.jpg.vq"),
        ("in/a.png", "out/a.png.vq"),
        ("in/b.png", "out/b.vq"),
        ("in/more/a.gif", "out/more/a.vq"),
    ]
    assert names("in/a.jpg", "in/more/../a.png") == [
        ("in/a.jpg", "in/a.jpg.vq"),
        ("in/more/../a.png", "in/more/../a.png.vq"),
    ]
    touch("vq/a.jpg.vq", "vq/a.png.vq")
    back = [task.target for task in plan(["vq"], None, DECODER, force=False).tasks]
    assert back == ["vq/a.jpg.png", "vq/a.png.png"]


def test_what_is_passed_over_is_counted(folder: Path) -> None:
    touch("in/a.png", "in/old.vq", "in/notes.txt", "in/more/b.TXT", "in/more/README")
    assert plan(["in"], None, ENCODER, force=False).passed_over == {".txt": 2, "no extension": 1}


def test_folders_that_cannot_be_read_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/a.png", "in/shut/b.png")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = plan(["in"], None, ENCODER, force=False)
    assert ([task.source for task in found.tasks], found.unreadable) == (
        ["in/a.png"],
        ["in/shut: cannot be read: Permission denied"],
    )
    assert plan(["in/shut"], None, ENCODER, force=False).unreadable == found.unreadable


def test_existing_outputs_need_force(folder: Path) -> None:
    touch("a.png", "b.png", "c.png", "out/b.vq")
    sources = ["a.png", "b.png", "c.png"]
    with pytest.raises(VqcodecError, match=r"^out/b\.vq: exists already; name a folder with -o, or overwrite with -f$"):
        plan(sources, "out", ENCODER, force=False)
    touch("out/c.vq")
    with pytest.raises(
        VqcodecError, match=r"^out/b\.vq: exists already, and 1 more; name a folder with -o, or overwrite with -f$"
    ):
        plan(sources, "out", ENCODER, force=False)
    assert len(plan(sources, "out", ENCODER, force=True).tasks) == 3
    Path("out/c.vq").write_bytes(pack(Container(8, 8, False, 75, b"abcd", (b"", b""))))
    skipping = plan(sources, "out", ENCODER, force=False, skip=True)
    assert [task.source for task in skipping.tasks] == ["a.png", "b.png"]
    assert skipping.skipped == [Task("c.png", "out/c.vq")]


def test_outputs_that_cannot_be(folder: Path) -> None:
    touch("a.png", "b.vq", "file", "in/sub/c.png", "taken/sub")
    with pytest.raises(VqcodecError, match=r"^b\.vq: is an input"):
        plan(["a.png", "b.vq"], None, ENCODER, force=True)
    os.link("b.vq", "a.vq")
    with pytest.raises(VqcodecError, match=r"^a\.vq: is an input"):
        plan(["a.png", "b.vq"], None, ENCODER, force=True)
    Path("out/a.vq").mkdir(parents=True)
    with pytest.raises(VqcodecError, match=r"^out/a\.vq: is a folder"):
        plan(["a.png"], "out", ENCODER, force=True)
    with pytest.raises(VqcodecError, match=r"^file/out: cannot be made: Not a directory"):
        plan(["a.png"], "file/out", ENCODER, force=True)
    with pytest.raises(VqcodecError, match=r"^taken/sub: cannot be made: File exists"):
        plan(["in"], "taken", ENCODER, force=True)


def copy(batch: Sequence[Task]) -> list[str]:
    """Work that ends at the first missing file."""
    return [shutil.copyfile(task.source, task.target) for task in batch]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [2, 3], [5], [1, 4]])
def test_outcomes_come_in_order_whatever_fails(folder: Path, processes: int, sizes: list[int]) -> None:
    for number in range(5):
        Path(f"{number}.in").write_text(str(number))
    os.remove("2.in")
    tasks = iter([Task(f"{number}.in", f"{number}.out") for number in range(5)])
    batches = [list(itertools.islice(tasks, size)) for size in sizes]
    outcomes = list(run_batches(copy, batches, processes))
    assert outcomes.pop(2) == Failure("2.in: No such file or directory")
    assert outcomes == ["0.out", "1.out", "3.out", "4.out"]
    assert [Path(f"{number}.out").read_text() for number in (0, 1, 3, 4)] == ["0", "1", "3", "4"]


def test_what_no_other_task_can_do_without_ends_it_all(folder: Path) -> None:
    done: list[str] = []
    faults = {"b": UnknownModelError("b: made with others"), "c": VqcodecError("c: bad")}

    def work(batch: Sequence[Task]) -> list[None]:
        for task in batch:
            done.append(task.source)
            if task.source in faults:
                raise faults[task.source]
        return [None] * len(batch)

    alone = [[Task(name, name)] for name in "abcd"]
    together = [[task for (task,) in alone]]
    for batches, order in ((alone, ["a", "b", "c", "d"]), (together, ["a", "b", "a", "b", "c", "d"])):
        done.clear()
        assert list(run_batches(work, batches, 1)) == [None, Failure("b: made with others"), Failure("c: bad"), None]
        assert done == order
    for fault in (WeightsError("w: damaged"), DeviceError("no cuda")):
        faults["b"] = fault
        for batches in (alone, together):
            with pytest.raises(type(fault), match=str(fault)):
                list(run_batches(work, batches, 1))


# --- batches ------------------------------------------------------------------------------------------------------


def vq(name: str, width: int, height: int, fingerprint: bytes = b"1234") -> Task:
    """The task of decoding such a file."""
    Path(name).write_bytes(pack(Container(width, height, False, 50, fingerprint, (b"1",))))
    return Task(name, f"{name}.png")


def test_files_of_one_size_and_model_go_together(folder: Path) -> None:
    tasks = [vq(f"{i}.vq", *sides) for i, sides in enumerate([(30, 20), (20, 30), (30, 20), (30, 21), (30, 20)])]
    tasks += [vq("5.vq", 30, 20, b"5678"), vq("6.vq", 30, 20, b"5678"), Task("none.vq", "none.png")]
    Path("damaged.vq").write_bytes(Path("6.vq").read_bytes()[:-1])
    tasks += [Task("damaged.vq", "damaged.png"), vq("9.vq", 30, 20, b"5678"), vq("10.vq", 30, 20, b"5678")]
    lengths = [len(batch) for batch in DECODER.batches(tasks, 1)]
    assert lengths == [3, 1, 1, 2, 1, 1, 2]
    assert [task for batch in DECODER.batches(tasks, 1) for task in batch] == tasks
    assert ENCODER.batches(tasks, 1) == [[task] for task in tasks]


def test_batches_are_short_enough_for_the_memory_and_for_all_processes(folder: Path) -> None:
    small = [vq(f"small{i}.vq", 30, 20) for i in range(40)]
    assert [len(batch) for batch in DECODER.batches(small, 1)] == [BATCH, BATCH, 40 - 2 * BATCH]
    assert [len(batch) for batch in DECODER.batches(small, 2)] == [7] * 5 + [5]
    assert [len(batch) for batch in DECODER.batches(small[:3], 8)] == [1, 1, 1]
    large = [vq(f"large{i}.vq", 2048, 1024) for i in range(5)]
    assert [len(batch) for batch in DECODER.batches(large, 1)] == [2, 2, 1]
