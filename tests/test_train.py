"""Training: whole runs of a tiny model, resuming, refusals, and the export."""

import dataclasses
import json
import math
import re
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

import vqcodec.train
from tests.train_support import CPU, PHASES, Kill, entries
from vqcodec.cli.main import main
from vqcodec.codec import Codec
from vqcodec.config import Config, PhaseConfig
from vqcodec.errors import ConfigError, TrainingError, WeightsError
from vqcodec.files.images import image_files
from vqcodec.metrics import bpp, psnr
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.quantize import VectorQuantizer
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.codes import CodesPhase
from vqcodec.train.export import FACTORS, QUALITIES, SCALE_POINTS, distortion_weights, export_weights, quality_scale
from vqcodec.train.joint import JointPhase, Model
from vqcodec.train.loop import Phase, Run, load_checkpoint
from vqcodec.train.prior import PriorPhase
from vqcodec.train.vae import VAEPhase
from vqcodec.weights import fill_decoder, fill_encoder, load_weights

# --- a finished run --------------------------------------------------------------------------------------------


def test_the_run_leaves_what_it_should_and_nothing_else(tiny_run: Path, tiny_config: Config) -> None:
    names = {path.name for path in tiny_run.iterdir() if not path.name.startswith("events.")}  # TensorBoard's
    assert names - {"sheets"} == {
        *(f"{phase}.pt" for phase in PHASES),
        "config.json",
        "log.jsonl",
        "tiny.md",
        "tiny.decoder.safetensors",
        "tiny.encoder.safetensors",
    }
    for name in PHASES:
        state = torch.load(tiny_run / f"{name}.pt", weights_only=True)
        assert state.keys() == {"module", "average", "optimizer", "step", "seconds", "done"}
        assert state["done"]
        assert state["step"] == getattr(tiny_config.train, name).steps
        assert 0 < state["seconds"] < 600


def test_the_log(tiny_run: Path, tiny_config: Config) -> None:
    log = entries(tiny_run)
    assert list(dict.fromkeys(entry["phase"] for entry in log)) == PHASES
    for name in PHASES:
        training = [entry for entry in log if entry["phase"] == name and "loss" in entry]
        evaluations = [entry for entry in log if entry["phase"] == name and entry.get("evaluation")]
        steps = getattr(tiny_config.train, name).steps
        assert [entry["step"] for entry in training] == [*range(50, steps, 50), steps]
        assert [entry["step"] for entry in evaluations] == [steps]
        for entry in training:
            assert {"minutes", "gradient_norm", "bpp"} <= entry.keys()
        warnings = [entry["step"] for entry in log if entry["phase"] == name and "warning" in entry]
        assert warnings == ([steps] if name == "vae" and evaluations[0]["live_share"] < 0.7 else [])
        live = {"live_share", *(f"live_{i}" for i in range(2 if name == "vae" else 3))}
        codebooks = {f"validation_{kind}_{i}" for kind in ("perplexity", "usage") for i in range(3)}
        assert evaluations[0]["images"] == 2
        assert (live <= evaluations[0].keys()) == (name != "prior")
        assert (codebooks <= evaluations[0].keys()) == (name in ("codes", "joint"))
        assert ("psnr_q40" in evaluations[0]) == (name != "prior")


def test_it_learns(tiny_run: Path) -> None:
    evaluated = {entry["phase"]: entry for entry in entries(tiny_run) if entry.get("evaluation")}
    assert evaluated["vae"]["psnr_q95"] > 17
    assert evaluated["codes"]["psnr_q95"] > 17
    # Hard codes chosen by rate are cheaper than noise, and the PixelCNN knows more than the heads do.
    assert evaluated["codes"]["bpp_q95"] < evaluated["vae"]["bpp_q95"]
    assert evaluated["joint"]["bpp_q95"] < 1.1 * evaluated["codes"]["bpp_q95"]


def test_the_sheets(tiny_run: Path) -> None:
    sheets = sorted((tiny_run / "sheets").iterdir())
    assert [path.name for path in sheets] == ["codes-000030.png", "joint-000005.png", "vae-000100.png"]
    for path in sheets:
        with Image.open(path) as image:
            assert image.size == (4 * 64, 2 * 64)  # original and three qualities, two images


def test_the_weights_are_the_averaged_ones_of_the_last_phase(tiny_run: Path, tiny_weights: Path) -> None:
    average = torch.load(tiny_run / "joint.pt", weights_only=True)["average"]
    weights = load_weights(tiny_weights)
    assert weights.name == "tiny"
    vqvae = VQVAE(weights.model)
    fill_decoder(vqvae, weights)
    fill_encoder(vqvae, weights)
    for name in set.union(*vqvae.sides()):
        assert torch.equal(vqvae.state_dict()[name], average[f"vqvae.{name}"].half().float())


def test_the_model_card(tiny_run: Path, tiny_data: Path, tiny_codec: Codec, tiny_config: Config) -> None:
    card = (tiny_run / "tiny.md").read_text(encoding="utf-8")
    assert card.startswith("# Model card: tiny\n")
    assert f"`{tiny_codec.fingerprint.hex()}`" in card
    assert "6 photographs, 0 megapixels, from `train`; 1 more were left out." in card
    assert "2 groups × 2 channels, K = 16, 1/8: 4 groups" in card
    for name in PHASES:
        (row,) = re.findall(rf"^\| {name} \|(.*)\|$", card, flags=re.MULTILINE)
        cells = row.replace(" ", "").split("|")
        assert [cells[0], *cells[2:4]] == [str(getattr(tiny_config.train, name).steps), "64", "4"]
        (last,) = [e["loss"] for e in entries(tiny_run) if e["phase"] == name and "loss" in e][-1:]
        assert float(cells[4]) == pytest.approx(last, abs=1e-4)
    images = [np.asarray(Image.open(path)) for path in image_files(tiny_data / "val")]
    for quality in QUALITIES:
        files = [tiny_codec.compress(image, quality, effort=0) for image in images]
        rate = np.mean([bpp(len(data), i.shape[1], i.shape[0]) for data, i in zip(files, images, strict=True)])
        decibel = np.mean([psnr(i, tiny_codec.decompress(data)) for data, i in zip(files, images, strict=True)])
        assert f"| {quality} | {rate:.4f} | {decibel:.2f} |" in card


# --- short runs, resumed and refused ---------------------------------------------------------------------------


@pytest.fixture
def start(
    tiny_data: Path, tmp_path: Path, short_config: Config, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Runs ``short_config`` in ``tmp_path/run``, quietly; keywords change what it is called with."""
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", (50,))

    def run(**changes: Any) -> Path:
        settings: dict[str, Any] = {
            "data_dir": tiny_data / "train",
            "run_dir": tmp_path / "run",
            "config": short_config,
            "validation_dir": tiny_data / "val",
            "device": "cpu",
            "quiet": True,
        }
        return vqcodec.train.run(**settings | changes)

    return run


@pytest.fixture(scope="session")
def short_run(tiny_data: Path, short_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of ``short_config``, for tests that go on from the middle of one."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vqcodec.train.export.QUALITIES", (50,))
        data = tiny_data / "train"
        vqcodec.train.run(data, folder, short_config, device="cpu", quiet=True, validation_dir=tiny_data / "val")
    return folder


@pytest.fixture
def done(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run in ``tmp_path/run``."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the losses and preparations of each phase; raises Kill at the loss number ``steps["limit"]``."""
    count: Counter[str] = Counter(limit=10**9)

    def watch(kind: type[Phase], method: str) -> None:
        honest = getattr(kind, method)

        def watched(self: Phase) -> Any:
            if method == "loss":
                count["losses"] += 1
                if count["losses"] == count["limit"]:
                    raise Kill
            count[f"{self.name} {method}"] += 1
            return honest(self)

        monkeypatch.setattr(kind, method, watched)

    for kind in (VAEPhase, PriorPhase, JointPhase):  # CodesPhase has VAEPhase's loss
        watch(kind, "loss")
    for kind in (CodesPhase, PriorPhase):
        watch(kind, "prepare")
    return count


@pytest.mark.parametrize(("killed_in", "at"), [("codes", 3), ("prior", 1), ("joint", 4)])
def test_a_killed_run_goes_on_where_it_was(
    start: Callable[..., Path], steps: Counter[str], short_run: Path, tmp_path: Path, killed_in: str, at: int
) -> None:
    index = PHASES.index(killed_in)
    (tmp_path / "run").mkdir()
    for name in ["config.json", *(f"{phase}.pt" for phase in PHASES[:index])]:  # the phases before are done
        shutil.copy(short_run / name, tmp_path / "run")
    steps["limit"] = at
    with pytest.raises(Kill):
        start(resume=True)
    assert [steps[f"{name} loss"] for name in PHASES] == [at - 1 if name == killed_in else 0 for name in PHASES]
    state = tmp_path / "run" / f"{killed_in}.pt"
    assert state.exists() == (at > 1)
    before = torch.load(state, weights_only=True) if at > 1 else {"step": 0, "seconds": 0.0, "done": False}
    assert (before["step"], before["done"]) == (at - 1, False)

    steps.update({name: -steps[name] for name in list(steps)})
    steps["limit"] = 10**9
    weights = start(resume=True)
    for i, name in enumerate(PHASES):
        assert steps[f"{name} loss"] == (0 if i < index else 4 if i > index else 4 - before["step"])
    assert steps["codes prepare"] == 0  # the codebooks are not fitted twice
    assert steps["prior prepare"] == (killed_in == "codes" or (killed_in, at) == ("prior", 1))
    after = torch.load(state, weights_only=True)
    assert (after["step"], after["done"]) == (4, True)
    assert after["seconds"] > before["seconds"]
    assert Codec.load(weights, device="cpu").compress(np.zeros((8, 8, 3), np.uint8))
    assert [e["phase"] for e in entries(tmp_path / "run") if "loss" in e] == PHASES[index:]


def test_a_run_of_an_older_version_goes_on(start: Callable[..., Path], root: Path, tmp_path: Path) -> None:
    """``golden/old-run.zip``: phase 0 done, two of four steps of phase 1; its configuration has other fields."""
    with zipfile.ZipFile(Path(__file__).parent / "golden" / "old-run.zip") as archive:
        archive.extractall(tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "evaluation_crop" not in stored["train"]
    stored = json.loads((tmp_path / "run" / "config.json").read_text().replace("null", "1e999"))
    assert stored["prior"].pop("sum_bits") == 24
    assert [level.pop("distortion_weight") for level in stored["model"]["levels"]] == [1.0, 1.0]
    # What is not stated there was so then, whatever the defaults are now.
    stored["model"] |= {"second_kernel": 3, "sigma_min": 1 / 3}
    stored["train"] |= {"downscale_max": 2.0, "grain": 0.0, "drawn_share": 0.0, "linear_start": False, "rounded": False}
    for name in PHASES:
        stored["train"][name]["cooldown"] = 1.0
    old = [load_checkpoint(tmp_path / "run" / f"{name}.pt", CPU) for name in ("vae", "codes")]
    assert [(state["step"], state["done"]) for state in old] == [(4, True), (2, False)]
    weights = start(config=Config.from_dict(stored), resume=True, data_dir=root / "examples", validation_dir=None)
    assert load_checkpoint(tmp_path / "run" / "vae.pt", CPU)["step"] == 4
    assert load_checkpoint(tmp_path / "run" / "codes.pt", CPU)["done"]
    assert Codec.load(weights, device="cpu").compress(np.zeros((8, 8, 3), np.uint8))


def test_resuming_a_finished_run_exports_the_same_file_again(
    start: Callable[..., Path],
    steps: Counter[str],
    done: Path,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", QUALITIES)  # all of them, as the finished run had
    files = [done / f"tiny.{side}.safetensors" for side in ("decoder", "encoder")]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    log = (done / "log.jsonl").read_text()
    assert start(config=tiny_config, resume=True, name="tiny") == files[0]
    assert [file.read_bytes() for file in files] == before
    assert (done / "log.jsonl").read_text() == log
    assert set(steps) == {"limit"}


def test_the_same_seed_gives_the_same_weights_and_says_nothing_when_quiet(
    start: Callable[..., Path], short_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start(name="short").read_bytes() == (short_run / "short.decoder.safetensors").read_bytes()
    assert capfd.readouterr() == ("", "")


def test_another_seed_gives_other_weights(
    start: Callable[..., Path], steps: Counter[str], short_config: Config, short_run: Path, tmp_path: Path
) -> None:
    steps["limit"] = 5  # phase 0 shows it
    with pytest.raises(Kill):
        start(config=dataclasses.replace(short_config, train=dataclasses.replace(short_config.train, seed=1)))
    ours, other = (load_checkpoint(folder / "vae.pt", CPU)["average"] for folder in (short_run, tmp_path / "run"))
    assert not torch.equal(ours["start"], other["start"])


def test_weights_of_which_a_side_is_missing_start_no_run(
    start: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    alone = shutil.copy(tiny_weights, tmp_path / "alone.decoder.safetensors")
    with pytest.raises(WeightsError, match=r"alone\.encoder\.safetensors: missing"):
        start(init=alone)
    assert not (tmp_path / "run").exists()


def test_rules_of_the_run_folder(start: Callable[..., Path], done: Path, short_config: Config, tmp_path: Path) -> None:
    def refuses(reason: str, **changes: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(TrainingError, match=reason):
            start(**changes)
        assert sorted(tmp_path.rglob("*")) == before

    refuses(r"run: holds a run already; go on with it by --resume, or name another folder$")
    refuses(r"run: was started with another configuration; see .*config\.json", resume=True)
    refuses(r"none: holds no run to resume$", resume=True, run_dir=tmp_path / "none")
    refuses(r"config\.json: not a folder", run_dir=done / "config.json")
    (done / "config.json").unlink()
    refuses(r"run: holds a run already")  # checkpoints that nobody asked to resume
    refuses(r"run: holds no run to resume", resume=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "not a checkpoint of vqcodec: EOFError"),
        (lambda data: data[:999], "not a checkpoint of vqcodec: "),
        (lambda _: b"cos\nsystem\n(S'touch owned'\ntR.", "not a checkpoint of vqcodec: UnpicklingError"),
    ],
)
def test_damaged_checkpoints(
    start: Callable[..., Path],
    done: Path,
    tiny_config: Config,
    damage: Callable[[bytes], bytes],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(done)
    (done / "prior.pt").write_bytes(damage((done / "prior.pt").read_bytes()))
    with pytest.raises(TrainingError, match=rf"run/prior\.pt: {reason}"):
        start(config=tiny_config, resume=True)
    assert not Path("owned").exists()


def test_checkpoints_of_something_else(start: Callable[..., Path], done: Path, tiny_config: Config) -> None:
    torch.save({"module": {}, "step": 3}, done / "codes.pt")
    with pytest.raises(TrainingError, match=r"codes\.pt: .* it has no average, done, optimizer, seconds$"):
        start(config=tiny_config, resume=True)
    shutil.copy(done / "joint.pt", done / "codes.pt")
    with pytest.raises(TrainingError, match=r"codes\.pt: a checkpoint of another model than this version trains$"):
        start(config=tiny_config, resume=True)


def test_impossible_requests_are_refused_before_the_data_is_read(
    start: Callable[..., Path], short_config: Config, tmp_path: Path
) -> None:
    odd = dataclasses.replace(short_config.train, joint=dataclasses.replace(short_config.train.joint, crop=72))
    with pytest.raises(ConfigError, match=r"^crop is 72, expected a multiple of the coarsest stride 16$"):
        start(config=dataclasses.replace(short_config, train=odd), data_dir=tmp_path / "none")
    for name in ("", "a/b", "..", "/a"):
        with pytest.raises(TrainingError, match=r"cannot be the name of a model"):
            start(name=name, data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["run", "weights"])
def test_a_run_starts_from_another_one(
    kind: str, start: Callable[..., Path], steps: Counter[str], tiny_run: Path, short_config: Config, tmp_path: Path
) -> None:
    if kind == "run":
        source, trained = tiny_run, load_checkpoint(tiny_run / "vae.pt", CPU)["average"]
    else:
        source = tiny_run / "tiny.decoder.safetensors"
        weights = load_weights(source)
        vqvae = VQVAE(weights.model)
        fill_encoder(vqvae, weights)
        trained = vqvae.state_dict()
    levels = [dataclasses.replace(level, groups=2 * level.groups) for level in short_config.model.levels]
    model = dataclasses.replace(short_config.model, levels=tuple(levels), widths=(8, 16, 24))
    steps["limit"] = 5  # phase 0 alone starts from it
    with pytest.raises(Kill):
        start(init=source, config=dataclasses.replace(short_config, model=model))
    # A few steps on, the old part of a kernel is still near where it started.
    grown = load_checkpoint(tmp_path / "run" / "vae.pt", CPU)["average"]
    name = "encoder.0.blocks.0.first.weight"
    assert grown[name].shape == trained[name].shape
    difference = (grown[name] - trained[name]).norm() / trained[name].norm()
    assert float(difference) < 0.5


@pytest.mark.parametrize("joint", [False, True])
def test_a_run_goes_on_with_the_codebooks_and_the_prior_of_another_one(
    joint: bool, start: Callable[..., Path], steps: Counter[str], tiny_run: Path, tiny_config: Config, tmp_path: Path
) -> None:
    source = shutil.copytree(tiny_run, tmp_path / "source")
    parts = {name: load_checkpoint(source / f"{name}.pt", CPU)["average"] for name in ("codes", "prior", "joint")}
    if joint:
        expected = parts["joint"]
    else:
        (source / "joint.pt").unlink()
        expected = {f"vqvae.{key}": value for key, value in parts["codes"].items()}
        expected |= {f"prior.{key}": value for key, value in parts["prior"].items()}
    still = {
        name: dataclasses.replace(getattr(tiny_config.train, name), steps=1, muon_lr=0.0, adam_lr=0.0)
        for name in PHASES
    }
    settings = dataclasses.replace(tiny_config.train, fit_batches=0, codebook="integers", **still)
    steps["limit"] = 10
    start(init=source, config=dataclasses.replace(tiny_config, train=settings))
    ours = load_checkpoint(tmp_path / "run" / "joint.pt", CPU)["average"]
    counted = ("usage", "expected")
    same = [key for key in ours if not key.endswith(counted) or key.startswith("prior.")]
    assert len(same) > 50
    for key in same:
        torch.testing.assert_close(ours[key], expected[key])


def test_codebooks_cannot_be_kept_from_nothing_or_from_another_model(
    start: Callable[..., Path], tiny_run: Path, tiny_config: Config, tmp_path: Path
) -> None:
    kept = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, fit_batches=0))
    with pytest.raises(
        ConfigError, match=r"^fit_batches is 0: name the run whose codebooks are kept, also to resume \(--init\)$"
    ):
        start(config=kept)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty: holds no run to start from, expected codes\.pt$"):
        start(config=kept, init=tmp_path / "empty")
    wider = dataclasses.replace(kept, prior=dataclasses.replace(kept.prior, channels=2 * kept.prior.channels))
    with pytest.raises(ConfigError, match=r"its model has other levels, widths or channels than the configuration$"):
        start(config=wider, init=tiny_run)
    assert not (tmp_path / "run").exists()


def test_what_a_run_cannot_start_from(
    start: Callable[..., Path], tiny_run: Path, short_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty: holds no run to start from, expected config\.json and vae\.pt$"):
        start(init=tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"none: cannot be read"):
        start(init=tmp_path / "none", run_dir=tmp_path / "other")
    model = dataclasses.replace(short_config.model, widths=(8, 8, 16))
    with pytest.raises(ConfigError, match=r"width at stride 8: 8 cannot start from 16"):
        start(init=tiny_run, config=dataclasses.replace(short_config, model=model), run_dir=tmp_path / "third")
    assert not [path for name in ("run", "other", "third") if (path := tmp_path / name).exists()]


def test_data_that_cannot_be_used(start: Callable[..., Path], tiny_data: Path, tmp_path: Path) -> None:
    empty, small, text = (tmp_path / name for name in ("empty", "small", "text"))
    for folder in (empty, small, text):
        folder.mkdir()
    (empty / "notes.txt").write_text("no images")
    (text / "a.png").write_text("no image")
    Image.new("RGB", (15, 200)).save(small / "a.png")
    for folder, reason in [
        (tmp_path / "none", r"none: not a folder; expected a folder of images$"),
        (empty, r"empty: holds no images; expected files such as"),
        (small, r"none of 1 images can be used; the first: .*a\.png: smaller than 16 pixels$"),
        (text, r"none of 1 images can be used; the first: .*a\.png: "),
    ]:
        for role in ("data_dir", "validation_dir"):
            with pytest.raises(TrainingError, match=reason):
                start(**{role: folder})
    assert not (tmp_path / "run").exists()  # so that the corrected command is not refused


def test_the_command(
    tiny_data: Path, short_config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_codec: Codec
) -> None:
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", (50,))
    tables = json.loads(json.dumps(short_config.to_dict()))
    lines = [
        f"model = {_toml(tables['model'])}",
        f"prior = {_toml(tables['prior'])}",
        f"train = {_toml(tables['train'])}",
    ]
    Path("short.toml").write_text("\n".join(lines))
    data, val = str(tiny_data / "train"), str(tiny_data / "val")
    command = ["train", data, "-o", "run", "--config", "short.toml", "--device", "cpu", "--validation", val]
    result = CliRunner().invoke(main, [*command, "--name", "mine"])
    few = "barely trained, fewer than 500 steps: 4 of vae, 4 of codes, 4 of prior, 4 of joint"
    assert (result.exit_code, result.stdout) == (0, f"run/mine.decoder.safetensors: {few}\n")
    exported = load_weights("run/mine.decoder.safetensors")
    trained, vqvae = exported.model, VQVAE(exported.model)
    assert trained == dataclasses.replace(tiny_codec.model, quality_scale=trained.quality_scale)
    fill_encoder(vqvae, exported)
    assert {quantizer.distortion_weight for quantizer in vqvae.quantizers()} <= set(FACTORS)
    assert len(trained.quality_scale) == SCALE_POINTS
    said = result.stderr.splitlines()
    assert re.match(r"vqcodec: warning: 1 images left out; the first: .*broken\.png: ", said[0])
    assert re.match(r"vqcodec: warning: vae: only \d+% of the trunk's channels are live at λ = 0\.03, ", said[2])
    assert [line.partition(":")[0] for line in [said[1], *said[3:]]] == [f"{phase} 4" for phase in PHASES]
    part = [*command[:3], "parts", *command[4:], "--stop-after", "0.0001"]
    result = CliRunner().invoke(main, part)
    assert re.fullmatch(r"parts: paused: vae: 0\.\d minutes done, [123] steps; --resume goes on\n", result.stdout)
    assert result.exit_code == 0
    result = CliRunner().invoke(main, [*part[:-2], "--resume", "--name", "mine"])
    assert (result.exit_code, result.stdout) == (0, f"parts/mine.decoder.safetensors: {few}\n")
    result = CliRunner().invoke(main, [*part, "--minutes", "4"])
    assert "holds a run already" in result.stderr
    again = CliRunner().invoke(main, command)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("vqcodec: error: run: holds a run already")
    assert again.stderr.count("\n") == 1


def _toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return "inf" if value == math.inf else json.dumps(value)


def test_without_matplotlib_a_run_draws_nothing_and_says_so(
    start: Callable[..., Path],
    steps: Counter[str],
    short_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("vqcodec.train", "vqcodec.train.drawings"):
        monkeypatch.setattr(f"{module}.can_draw", lambda: False)
    drawn = dataclasses.replace(short_config, train=dataclasses.replace(short_config.train, drawn_share=1.0))
    steps["limit"] = 2
    with pytest.raises(Kill):
        start(config=drawn, quiet=False)
    assert (
        "\nvqcodec: warning: no drawings among the crops, which need the package matplotlib: "
        in capsys.readouterr().err
    )


def test_without_a_validation_folder_some_images_are_held_out(
    start: Callable[..., Path], short_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(short_run, tmp_path / "run")
    weights = start(validation_dir=None, resume=True)
    assert weights.name == "run.decoder.safetensors"
    card = weights.with_name("run.md").read_text(encoding="utf-8")
    assert "Data: 5 photographs" in card
    assert "Means over the whole files of 1 validation images, compressed" in card


# --- export ---------------------------------------------------------------------------------------------------


def test_distortion_weights_are_those_of_the_best_curve(
    tiny_state: Run, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model whose curve is known: one level is best at 2, the others as they were."""
    best = (1.0, 2.0, 1.0)
    quantizers = [m for m in tiny_model.vqvae.modules() if isinstance(m, VectorQuantizer)]

    def bits(self: PixelCNN, codes: list[Tensor], lmbda: Tensor) -> list[Tensor]:
        wrong = sum(abs(math.log(q.distortion_weight / b)) for q, b in zip(quantizers, best, strict=True))
        return [(1 + wrong) * lmbda.sqrt() * 1000]

    def decode(self: VQVAE, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        # Squared error weighs more, so PSNR rises as well: that must not pay by itself.
        x_hat: Tensor = codes[0] + 0.01 / (lmbda * quantizers[1].distortion_weight).sqrt()
        return x_hat

    monkeypatch.setattr(VQVAE, "encode", lambda self, x, lmbda: [x])
    monkeypatch.setattr(VQVAE, "decode", decode)
    monkeypatch.setattr(PixelCNN, "forward", bits)
    found = distortion_weights(tiny_state, tiny_model)
    assert found == best == tuple(q.distortion_weight for q in quantizers)


def test_qualities_are_evenly_spaced_in_decibels(
    tiny_state: Run, tiny_model: Model, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model whose PSNR is known: 20·√place dB, place being 0..1 along log λ."""
    low, high = (math.log(bound) for bound in (tiny_config.model.lambda_min, tiny_config.model.lambda_max))

    def decode(self: VQVAE, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        place = max(0.0, (float(lmbda.log()) - low) / (high - low))
        return codes[0] + 10 ** -math.sqrt(place)

    monkeypatch.setattr(VQVAE, "encode", lambda self, x, lmbda: [x])
    monkeypatch.setattr(VQVAE, "decode", decode)
    scale = quality_scale(tiny_state, tiny_model.vqvae)
    # Linear between its points, and steepest at the low end.
    assert scale == pytest.approx([(i / (len(scale) - 1)) ** 2 for i in range(len(scale))], abs=0.025)
    model = dataclasses.replace(tiny_config.model, quality_scale=scale)
    decibels = [20 * math.sqrt((math.log(model.lmbda(q)) - low) / (high - low) + 1e-12) for q in range(10, 101, 10)]
    assert np.diff(decibels)[2:] == pytest.approx([20 * 10 / 99] * 7, rel=0.15)


def test_the_quality_scale_of_a_model_that_is_the_same_at_every_quality(
    tiny_state: Run, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VQVAE, "decode", lambda self, codes, lmbda: torch.zeros(1, 3, 64, 64))
    scale = quality_scale(tiny_state, tiny_model.vqvae)
    assert scale == pytest.approx([i / (len(scale) - 1) for i in range(len(scale))])


def test_a_diverged_model_is_not_exported(
    tiny_state: Run, tiny_model: Model, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.train.export.FACTORS", (1.0,))
    cast(Any, tiny_model.vqvae).start.data[0] = math.nan
    with pytest.raises(WeightsError, match=r"m\.decoder\.safetensors: tensor vqvae\.start is not finite"):
        export_weights(tiny_state, tiny_model, tiny_config, Path("data"), name="m")
    assert not list(tiny_state.folder.iterdir())


def test_an_export_in_no_time_keeps_to_defaults_and_measures_one_crop(
    tiny_state: Run, tiny_model: Model, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", (50,))
    tiny_state.validation.smallest = 48
    (tiny_state.folder / "log.jsonl").touch()
    path = export_weights(tiny_state, tiny_model, tiny_config, Path("data"), name="m", seconds=0.0)
    codec = Codec.load(path, device="cpu")
    assert codec.model.quality_scale == ()
    assert {quantizer.distortion_weight for quantizer in tiny_model.vqvae.quantizers()} == {1.0}
    card = path.with_name("m.md").read_text(encoding="utf-8")
    assert "by level: 1, 1, 1; there was no time to search for better ones." in card
    assert "evenly spaced in log λ" in card
    assert "Means over the middle 48×48 of 1 validation images" in card
    image = tiny_state.validation.images[0].permute(1, 2, 0).numpy()[8:56, 24:72]
    data = codec.compress(np.ascontiguousarray(image), 50, effort=0)
    assert f"| 50 | {bpp(len(data), 48, 48):.4f} | {psnr(image, codec.decompress(data)):.2f} |" in card


def test_a_short_run_keeps_to_its_minutes(start: Callable[..., Path], short_config: Config, tmp_path: Path) -> None:
    """Phases that would take hours: every one is begun and measured, and six seconds are a bound on the whole."""
    long = PhaseConfig(minutes=60, batch=2, crop=64)
    train = dataclasses.replace(short_config.train, minutes=0.1, vae=long, codes=long, prior=long, joint=long)
    begun = time.monotonic()
    weights = start(config=dataclasses.replace(short_config, train=train))
    assert time.monotonic() - begun < 60  # a busy machine may hold up single steps
    assert [entry["phase"] for entry in entries(tmp_path / "run") if entry.get("evaluation")] == PHASES
    assert "**This model is barely trained" in weights.with_name("run.md").read_text(encoding="utf-8")
    assert load_weights(weights).name == "run"
