"""Weights files: written and read back, found by name and by fingerprint, and refused when damaged."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.config import Config, LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import UnknownModelError, WeightsError
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import TRAINING_ONLY, VQVAE
from vqcodec.train.fixed_point import fixed_point
from vqcodec.weights import MAX_BYTES, find_weights, folders, load_weights, save_weights

MODEL = ModelConfig(levels=(LevelConfig(4, 2, 1, 4, 2),), widths=(4,), blocks=(1,))
PRIOR = PriorConfig(channels=4, layers=1, context_layers=1)


def tensors(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(seed)
    vqvae = {k: v for k, v in VQVAE(MODEL).state_dict().items() if not k.endswith(TRAINING_ONLY)}
    return vqvae, fixed_point(PixelCNN(MODEL, PRIOR))


def write(path: Path, seed: int = 0) -> bytes:
    return save_weights(path, path.stem, MODEL, PRIOR, *tensors(seed))


@pytest.fixture(scope="module")
def good() -> bytes:
    """The bytes of a sound weights file."""
    config = {k: v for k, v in Config(model=MODEL, prior=PRIOR).to_dict().items() if k != "train"}
    vqvae, prior = tensors()
    named = {f"vqvae.{k}": v.half().contiguous() for k, v in vqvae.items()} | {
        f"prior.{k}": v for k, v in prior.items()
    }
    return save(named, {"format": "vqcodec-weights-1", "name": "m", "config": json.dumps(config)})


@pytest.fixture
def models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the only one that is searched for weights."""
    monkeypatch.setattr("vqcodec.weights.folders", lambda: [folder / "absent", folder])
    return folder


def refuses(path: Path, *parts: str) -> None:
    """One line that starts with the file's name, whether the file is read alone or opened as a codec."""
    with pytest.raises(WeightsError) as caught:
        Codec.load(path, device="cpu")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    assert len(message) < len(str(path)) + 500
    for part in parts:
        assert part in message


def test_round_trip(folder: Path) -> None:
    vqvae, prior = tensors()
    fingerprint = save_weights(folder / "m.safetensors", "m", MODEL, PRIOR, vqvae, prior)
    weights = load_weights(folder / "m.safetensors")
    assert (weights.name, weights.model, weights.prior) == ("m", MODEL, PRIOR)
    assert weights.fingerprint == fingerprint == hashlib.sha256(Path("m.safetensors").read_bytes()).digest()[:4]
    assert weights.vqvae.keys() == vqvae.keys()
    for name, tensor in vqvae.items():
        assert torch.equal(weights.vqvae[name], tensor.half().float())
        assert weights.vqvae[name].dtype == torch.float32
    assert weights.prior_integers.keys() == prior.keys()
    for name, tensor in prior.items():
        assert torch.equal(weights.prior_integers[name], tensor)
        assert weights.prior_integers[name].dtype == tensor.dtype


def test_weights_that_do_not_say_are_of_the_wide_arithmetic(good: bytes, folder: Path) -> None:
    def forget(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        config = json.loads(metadata["config"])
        del config["prior"]["sum_bits"]
        metadata["config"] = json.dumps(config)

    Path("old.safetensors").write_bytes(_edit(forget)(good))
    assert load_weights("old.safetensors").prior == replace(PRIOR, sum_bits=53)


def test_the_same_weights_give_the_same_bytes(folder: Path) -> None:
    assert len({write(Path("a.safetensors")) for _ in range(8)}) == 1
    assert write(Path("a.safetensors"), 0) != write(Path("a.safetensors"), 1)


def test_a_file_is_opened_by_other_readers_of_safetensors_and_holds_no_training_settings(good: bytes) -> None:
    assert {name.partition(".")[0] for name in load(good)} == {"vqvae", "prior"}
    assert b"train" not in good[: 8 + int.from_bytes(good[:8], "little")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_diverged_model_is_not_written(folder: Path, value: float) -> None:
    vqvae, prior = tensors()
    vqvae["last.conv.bias"][1] = value
    with pytest.raises(WeightsError, match=r"^m\.safetensors: tensor vqvae\.last\.conv\.bias is not finite"):
        save_weights(Path("m.safetensors"), "m", MODEL, PRIOR, vqvae, prior)
    assert not Path("m.safetensors").exists()


def test_loading_leaves_the_random_numbers_alone(tiny_weights: Path) -> None:
    before = torch.get_rng_state()
    Codec.load(tiny_weights, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_found_by_name(models: Path) -> None:
    write(models / "aaa.safetensors")
    with pytest.raises(WeightsError, match=f"no weights named compact.safetensors in .*absent, {models}"):
        find_weights()
    write(models / "compact.safetensors")
    assert find_weights() == models / "compact.safetensors"


def test_found_by_fingerprint(models: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"weights 01020304, which are not installed here; known: none"):
        find_weights(b"\1\2\3\4")
    fingerprints = {
        name: write(models / f"{name}.safetensors", seed) for seed, name in enumerate(["a", "b", "compact"])
    }
    for name, fingerprint in fingerprints.items():
        assert find_weights(fingerprint) == models / f"{name}.safetensors"
    with pytest.raises(UnknownModelError, match=rf"known: a \({fingerprints['a'].hex()}\), b .*, compact "):
        find_weights(b"\1\2\3\4")


def test_a_file_that_cannot_be_read_hides_no_other(models: Path) -> None:
    (models / "a.safetensors").mkdir()
    (models / "b.safetensors").symlink_to("nowhere")
    fingerprint = write(models / "c.safetensors")
    assert find_weights(fingerprint) == models / "c.safetensors"
    with pytest.raises(UnknownModelError, match=r"a \(unreadable\), b \(unreadable\), c \("):
        find_weights(bytes(4))


def test_a_folder_of_ones_own_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.delenv("VQCODEC_WEIGHTS", raising=False)
    shipped = folders()
    assert shipped == [root / "vqcodec" / "models", root / "weights"]
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(folder))
    assert folders() == [folder, *shipped]
    fingerprint = write(folder / "compact.safetensors")
    assert find_weights() == find_weights(fingerprint) == folder / "compact.safetensors"


def _edit(change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Callable[[bytes], bytes]:
    """A damage that changes tensors or metadata of the sound file."""

    def damage(good: bytes) -> bytes:
        contents = load(good)
        metadata: dict[str, str] = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["__metadata__"]
        change(contents, metadata)
        return save(contents, metadata)

    return damage


def _config(**tables: Any) -> Callable[[bytes], bytes]:
    """A damage that changes the configuration."""

    def change(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | tables)

    return _edit(change)


MODEL_TABLE: dict[str, Any] = Config(model=MODEL).to_dict()["model"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "not a vqcodec weights file"),
        (lambda good: good[:7], "not a vqcodec weights file"),
        (lambda good: good[:100], "not a vqcodec weights file"),
        (lambda good: good[:-1], "not a vqcodec weights file"),
        (lambda good: good + b"\0", "not a vqcodec weights file"),
        (lambda _: b"Once upon a time there was a file.\n" * 99, "not a vqcodec weights file"),
        (lambda _: hashlib.shake_256(b"noise").digest(9999), "not a vqcodec weights file"),
        (lambda _: pickle.dumps(print), "not a vqcodec weights file"),
        (lambda good: save(load(good)), "format is not stated, expected vqcodec-weights-1"),
        (_edit(lambda _, m: m.update(format="vqcodec-weights-2")), "vqcodec-weights-2, expected vqcodec-weights-1"),
        (_edit(lambda _, m: m.update(config="{")), "not a vqcodec weights file"),
        (_edit(lambda _, m: m.update(config="[]")), "expected a table"),
        (_edit(lambda _, m: m.update(config="[" * 99_999)), "not a vqcodec weights file"),
        (_config(colours=3), "unknown field colours"),
        (_config(model=MODEL_TABLE | {"lambda_max": 10**999}), "not a vqcodec weights file"),
        (_config(model=MODEL_TABLE | {"widths": [5]}), "do not fit the configuration"),
        (_config(model=MODEL_TABLE | {"widths": [10**7]}), "do not fit the configuration"),
        (_config(prior={"channels": 5}), "prior tensor 0."),
        (_edit(lambda t, _: t.clear()), "Missing key"),
        (_edit(lambda t, _: t.__delitem__("vqvae.start")), 'Missing key(s) in state_dict: "start"'),
        (_edit(lambda t, _: t.__delitem__("prior.0.hidden.shift")), "prior has no tensor 0.hidden.shift"),
        (_edit(lambda t, _: t.update(x=torch.zeros(1))), "unexpected tensor x"),
        (_edit(lambda t, _: t.update({"vqvae.x": torch.zeros(1)})), 'Unexpected key(s) in state_dict: "x"'),
        (_edit(lambda t, _: t.update({"prior.x": torch.zeros(1, dtype=torch.int32)})), "unexpected tensors: x"),
        (_edit(lambda t, _: t.update({"vqvae.start": torch.zeros(7)})), "size mismatch for start"),
        (_edit(lambda t, _: t.update({"prior.0.quality": t["prior.0.quality"][:, :3].clone()})), "expected integers"),
        (_edit(lambda t, _: t.update({"prior.0.quality": t["prior.0.quality"].float()})), "expected integers [100, 4]"),
        (
            _edit(lambda t, _: t.update({"prior.0.hidden.bias": torch.full((8,), 2**60)})),
            "beyond the exact integers below 2^24",
        ),
    ],
)
def test_damaged_files(good: bytes, folder: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    path = Path("broken.safetensors")
    path.write_bytes(good)
    Codec.load(path, device="cpu")
    path.write_bytes(damage(good))
    refuses(path, reason)


def test_what_is_no_file(folder: Path) -> None:
    refuses(Path("absent.safetensors"), "No such file")
    refuses(folder, "not a regular file")
    os.mkfifo("pipe.safetensors")  # reading it would never end
    refuses(Path("pipe.safetensors"), "not a regular file")
    refuses(Path(os.devnull), "not a regular file")
    with Path("huge.safetensors").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    refuses(Path("huge.safetensors"), str(MAX_BYTES + 1))


@given(st.data())
def test_any_changed_byte_is_refused_or_a_sound_file(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    header = 8 + int.from_bytes(good[:8], "little")
    at = data.draw(st.integers(0, header - 1))
    value = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
    try:
        weights = load_weights(path)
    except WeightsError:
        refuses(path)
    else:  # the name is free, as are numbers that fit
        assert weights.fingerprint == hashlib.sha256(path.read_bytes()).digest()[:4]


def test_a_mistyped_folder_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(tmp_path / "nonsense"))
    with pytest.raises(WeightsError, match=r"VQCODEC_WEIGHTS is .*nonsense, expected a folder of weights"):
        find_weights()


def manifest(**sums: str) -> None:
    Path("SHA256SUMS").write_text("".join(f"{digest}  {name}.safetensors\n" for name, digest in sums.items()))


def test_weights_must_be_what_their_manifest_says(models: Path) -> None:
    fingerprint = write(models / "compact.safetensors")
    data = Path("compact.safetensors").read_bytes()
    manifest(compact=hashlib.sha256(data).hexdigest(), other="0" * 64)
    assert load_weights(find_weights(fingerprint)).fingerprint == fingerprint
    # One bit of a weight, which safetensors cannot see.
    Path("compact.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refuses(models / "compact.safetensors", "damaged: its SHA-256 is ", "SHA256SUMS says ")
    # It still has its name, so that it is the damage that is reported.
    assert find_weights(fingerprint) == models / "compact.safetensors"
    # What is not listed is the user's own.
    assert load_weights(Path(shutil.copy("compact.safetensors", "mine.safetensors"))).fingerprint != fingerprint


def test_weights_are_found_by_the_manifest_unread(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = [write(models / f"{name}.safetensors", seed) for seed, name in enumerate("abc")]
    manifest(a=fingerprints[0].hex() + "0" * 56, b=fingerprints[1].hex() + "0" * 56)
    monkeypatch.setattr("vqcodec.weights._read", lambda path: pytest.fail(f"{path} was read"))
    assert find_weights(fingerprints[1]).stem == "b"


@pytest.mark.parametrize("text", ["hello", "0" * 63 + "  a", "0" * 64 + " a", "0" * 64 + "  a\n\n"])
def test_a_manifest_that_is_none(models: Path, text: str) -> None:
    write(models / "compact.safetensors")
    Path("SHA256SUMS").write_text(text)
    with pytest.raises(WeightsError, match="SHA256SUMS: not a list of SHA-256 sums"):
        load_weights(find_weights())


def test_the_manifest_of_the_shipped_weights_lists_them_all(root: Path) -> None:
    lines = [line.split() for line in (root / "weights" / "SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in lines] == sorted(path.name for path in (root / "weights").glob("*.safetensors"))
    for digest, name in lines:
        assert hashlib.sha256((root / "weights" / name).read_bytes()).hexdigest() == digest
