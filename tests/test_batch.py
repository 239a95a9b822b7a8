"""Many files: their names, and the processes that work on them. The command line's part is in test_cli."""

import os
import shutil
from pathlib import Path

import pytest

from vqcodec.batch import Failure, Task, plan, run
from vqcodec.coding import Decoder, Encoder, Models
from vqcodec.errors import DeviceError, UnknownModelError, VqcodecError, WeightsError

MODELS = Models(None, "cpu", None)
ENCODER = Encoder(MODELS, 75, psnr=False)
DECODER = Decoder(MODELS)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def names(*sources: str, output: str | None = None, force: bool = False) -> list[tuple[str, str]]:
    return [(task.source, task.target) for task in plan(sources, output, ENCODER, force=force)]


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
    assert plan(["in"], "out", DECODER, force=False) == [
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
        (["a.png", "a.jpg"], None, "a.png", "a.jpg"),
        (["in"], "out", "in/a.jpg", "in/a.png"),
        (["in/a.png", "b/a.png"], "out", "in/a.png", "b/a.png"),
        (["in/more", "b"], "out", "in/more/a.png", "b/a.png"),
        (["in/a.jpg", "in/more/../a.png"], None, "in/a.jpg", "in/more/../a.png"),
    ],
)
def test_two_files_for_one_name_are_refused(
    folder: Path, sources: list[str], output: str | None, first: str, second: str
) -> None:
    touch("a.png", "a.jpg", "in/a.png", "in/a.jpg", "in/more/a.png", "b/a.png")
    with pytest.raises(VqcodecError, match=rf"^{first} and {second} would both be written to \S*a\.vq$"):
        plan(sources, output, ENCODER, force=True)
    assert not Path("out").exists()


def test_existing_outputs_need_force(folder: Path) -> None:
    touch("a.png", "b.png", "c.png", "out/b.vq")
    sources = ["a.png", "b.png", "c.png"]
    with pytest.raises(VqcodecError, match=r"^out/b\.vq: exists already \(-f overwrites\)$"):
        plan(sources, "out", ENCODER, force=False)
    touch("out/c.vq")
    with pytest.raises(VqcodecError, match=r"^out/b\.vq: exists already, and 1 more \(-f overwrites\)$"):
        plan(sources, "out", ENCODER, force=False)
    assert len(plan(sources, "out", ENCODER, force=True)) == 3


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


@pytest.mark.parametrize("processes", [1, 2])
def test_outcomes_come_in_order_whatever_fails(folder: Path, processes: int) -> None:
    for number in range(5):
        Path(f"{number}.in").write_text(str(number))
    os.remove("2.in")
    tasks = [Task(f"{number}.in", f"{number}.out") for number in range(5)]
    outcomes = list(run(shutil.copyfile, tasks, processes))
    assert outcomes.pop(2) == Failure("2.in: No such file or directory")
    assert outcomes == ["0.out", "1.out", "3.out", "4.out"]
    assert [Path(f"{number}.out").read_text() for number in (0, 1, 3, 4)] == ["0", "1", "3", "4"]


def test_what_no_other_task_can_do_without_ends_it_all(folder: Path) -> None:
    done: list[str] = []
    faults = {"b": UnknownModelError("b: made with others"), "c": VqcodecError("c: bad")}

    def work(source: str, target: str) -> None:
        done.append(source)
        if source in faults:
            raise faults[source]

    tasks = [Task(name, name) for name in "abcd"]
    assert list(run(work, tasks, 1)) == [None, Failure("b: made with others"), Failure("c: bad"), None]
    for fault in (WeightsError("w: damaged"), DeviceError("no cuda")):
        faults["b"] = fault
        done.clear()
        with pytest.raises(type(fault), match=str(fault)):
            list(run(work, tasks, 1))
        assert done == ["a", "b"]
