"""Weights files: both sides are written and read back, found by name and by fingerprint, and refused when damaged."""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

import vqcodec.weights
from vqcodec.codec import Codec
from vqcodec.config import TUNES, LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import UnknownModelError, WeightsError
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.weights import (
    DECODER_SUFFIX,
    MAX_BYTES,
    encoder_path,
    fill_decoder,
    fill_encoder,
    find_weights,
    folders,
    load_weights,
    save_encoder,
    save_weights,
)

MODEL = ModelConfig(
    levels=(LevelConfig(4, 2, 1, 4, 2), LevelConfig(4, 2, 1, 4, 2, pixels=True)),
    widths=(4,),
    blocks=(1,),
    second_kernel=3,
)
PRIOR = PriorConfig(channels=4, layers=1, context_layers=1)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def network(seed: int = 0) -> VQVAE:
    torch.manual_seed(seed)
    vqvae = VQVAE(MODEL)
    for factor, quantizer in enumerate(vqvae.quantizers(), 2):
        quantizer.distortion_weight = 0.7 * factor
    return vqvae


def integers(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return fixed_point(PixelCNN(MODEL, PRIOR))


def write(path: Path, seed: int = 0) -> bytes:
    """Both sides of a model, of which ``path`` is the decoder side; returns its fingerprint."""
    name = path.name.removesuffix(DECODER_SUFFIX)
    return save_weights(path, name, network(seed), PRIOR, integers(seed))[:4]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The bytes of a sound decoder side and of its encoder side."""
    path = tmp_path_factory.mktemp("good") / "m.decoder.safetensors"
    write(path)
    return path.read_bytes(), encoder_path(path).read_bytes()


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


def header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    data = path.read_bytes()
    metadata: dict[str, str] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return metadata


def test_absent_entries_mean_what_the_format_says(folder: Path) -> None:
    write(folder / "m.decoder.safetensors")
    data = Path("m.decoder.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:end])
    config = json.loads(head["__metadata__"]["config"])
    assert (config["model"].pop("second_kernel"), config["model"].pop("quality_scale")) == (3, [])
    head["__metadata__"]["config"] = json.dumps(config)
    text = json.dumps(head).encode()
    Path("m.decoder.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    assert load_weights("m.decoder.safetensors").model == MODEL


def test_round_trip(folder: Path) -> None:
    vqvae, prior = network(), integers()
    digest = save_weights(folder / "m.decoder.safetensors", "m", vqvae, PRIOR, prior)
    assert digest == hashlib.sha256(Path("m.decoder.safetensors").read_bytes()).digest()
    weights = load_weights("m.decoder.safetensors")
    assert (weights.path, weights.name) == (folder / "m.decoder.safetensors", "m")
    assert (weights.model, weights.prior) == (MODEL, PRIOR)
    assert (weights.digest, weights.fingerprint) == (digest, digest[:4])
    assert weights.prior_integers.keys() == prior.keys()
    for name, tensor in prior.items():
        assert torch.equal(weights.prior_integers[name], tensor)
        assert weights.prior_integers[name].dtype == tensor.dtype
    decoder, encoder = vqvae.sides()
    again = network(1)
    for fill, names in ((fill_decoder, decoder), (fill_encoder, encoder)):
        before = {name: tensor.clone() for name, tensor in again.state_dict().items()}
        fill(again, weights)
        for name, tensor in again.state_dict().items():
            assert torch.equal(tensor, vqvae.state_dict()[name].half().float() if name in names else before[name])
            assert tensor.dtype == torch.float32
    assert [q.distortion_weight for q in again.quantizers()] == [q.distortion_weight for q in vqvae.quantizers()]


def test_the_same_weights_give_the_same_bytes(folder: Path) -> None:
    path = folder / "a.decoder.safetensors"
    assert len({(write(path), encoder_path(path).read_bytes()) for _ in range(8)}) == 1
    assert write(path, 0) != write(path, 1)


def test_each_side_holds_what_it_should_and_other_readers_open_it(folder: Path) -> None:
    write(folder / "m.decoder.safetensors")
    decoder, encoder = (load(Path(f"m.{side}.safetensors").read_bytes()) for side in ("decoder", "encoder"))
    names = [{key.removeprefix("vqvae.") for key in side if key.startswith("vqvae.")} for side in (decoder, encoder)]
    assert tuple(names) == network().sides()
    assert {key.partition(".")[0] for key in decoder} == {"vqvae", "prior"}
    assert {key.partition(".")[0] for key in encoder} == {"vqvae"}
    about, chooses = header(Path("m.decoder.safetensors")), header(Path("m.encoder.safetensors"))
    assert about.keys() == {"format", "name", "config"}
    assert json.loads(about["config"]).keys() == {"model", "prior"}  # and no training settings
    assert chooses["decoder"] == hashlib.sha256(Path("m.decoder.safetensors").read_bytes()).hexdigest()
    assert json.loads(chooses["config"]) == {"distortion_weights": [0.7 * 2, 0.7 * 3], "distortion": "mse"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
@pytest.mark.parametrize(("side", "name"), [("decoder", "last.conv.bias"), ("encoder", "first.conv.bias")])
def test_a_diverged_model_is_not_written(folder: Path, side: str, name: str, value: float) -> None:
    vqvae = network()
    with torch.no_grad():
        vqvae.get_parameter(name)[1] = value
    with pytest.raises(WeightsError, match=rf"^m\.{side}\.safetensors: tensor vqvae\.{name} is not finite"):
        save_weights(Path("m.decoder.safetensors"), "m", vqvae, PRIOR, integers())
    assert not list(folder.iterdir())


def test_a_decoder_side_must_be_named_so_that_its_encoder_side_is_found(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"^m\.safetensors: expected a name that ends with \.decoder\.safetensors"):
        save_weights(Path("m.safetensors"), "m", network(), PRIOR, integers())
    assert not list(folder.iterdir())
    write(folder / "m.decoder.safetensors")
    data = Codec.load("m.decoder.safetensors", device="cpu").compress(PIXELS)
    codec = Codec.load(shutil.copy("m.decoder.safetensors", "copy.safetensors"), device="cpu")
    assert codec.decompress(data).shape == PIXELS.shape
    with pytest.raises(WeightsError, match=r"copy\.safetensors: expected a name that ends with"):
        codec.compress(PIXELS)


def test_decoding_needs_no_encoder_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "m.decoder.safetensors"
    write(path)
    whole = Codec.load(path, device="cpu")
    data = whole.compress(PIXELS)
    opened: list[Path] = []
    honest = vqcodec.weights._read

    def read(path: Path) -> tuple[bytes, bytes]:
        opened.append(path)
        return honest(path)

    monkeypatch.setattr("vqcodec.weights._read", read)
    encoder_path(path).unlink()
    codec = Codec.for_file(data, weights=path, device="cpu")
    assert np.array_equal(codec.decompress(data), whole.decompress(data))
    assert np.array_equal(codec.salvage(data[:-1])[0], whole.salvage(data[:-1])[0])
    assert opened == [path]
    with pytest.raises(WeightsError) as caught:
        codec.compress(PIXELS)
    assert str(caught.value) == (
        f"{encoder_path(path)}: missing; compressing needs this encoder side next to m.decoder.safetensors"
    )
    # It may arrive later, and is found wherever the process is by then.
    write(path)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert codec.compress(PIXELS) == data


def test_another_encoder_side_changes_no_decode(folder: Path) -> None:
    path = folder / "m.decoder.safetensors"
    write(path)
    before = Codec.load(path, device="cpu")
    data = before.compress(PIXELS)
    digest, pixels = path.read_bytes(), before.decompress(data)
    save_encoder(encoder_path(path), "m", network(1), before._weights.digest)
    after = Codec.load(path, device="cpu")
    assert (path.read_bytes(), after.fingerprint) == (digest, before.fingerprint)
    assert np.array_equal(after.decompress(data), pixels)
    other = after.compress(PIXELS)
    assert other != data
    assert np.array_equal(after.decompress(other), before.decompress(other))
    assert np.array_equal(after.decompress(data), pixels)


def test_an_encoder_side_of_another_decoder_is_refused(folder: Path) -> None:
    one, other = folder / "one.decoder.safetensors", folder / "other.decoder.safetensors"
    fingerprints = write(one, 1).hex(), write(other, 2).hex()
    shutil.copy(encoder_path(one), encoder_path(other))
    with pytest.raises(WeightsError) as caught:
        Codec.load(other, device="cpu").compress(PIXELS)
    assert str(caught.value) == (
        f"{encoder_path(other)}: made for another decoder: its decoder is {fingerprints[0]}, other.decoder.safetensors "
        f"is {fingerprints[1]}"
    )


def test_loading_leaves_the_random_numbers_alone(tiny_weights: Path) -> None:
    before = torch.get_rng_state()
    Codec.load(tiny_weights, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_found_by_name(models: Path) -> None:
    write(models / "aaa.decoder.safetensors")
    with pytest.raises(WeightsError, match=f"no weights named compact.decoder.safetensors in .*absent, {models}"):
        find_weights()
    write(models / "compact.decoder.safetensors")
    assert find_weights() == models / "compact.decoder.safetensors"


def test_found_by_tune(models: Path) -> None:
    fingerprints = [
        write(models / f"{name}.decoder.safetensors", seed) for seed, name in enumerate(["compact", "visual"])
    ]
    assert [find_weights(tune=tune).name.partition(".")[0] for tune in TUNES] == ["compact", "visual"]
    assert [Codec.load(tune=tune).fingerprint for tune in TUNES] == fingerprints
    assert find_weights(fingerprints[0], tune="visual") == models / "compact.decoder.safetensors"
    (models / "visual.decoder.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weights named visual\.decoder\.safetensors in "):
        find_weights(tune="visual")
    with pytest.raises(ValueError, match=r"^tune is 'eyes', expected 'psnr' or 'visual'$"):
        find_weights(tune="eyes")  # type: ignore[arg-type]


def test_found_by_fingerprint(models: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"weights 01020304, which are not installed here; known: none"):
        find_weights(b"\1\2\3\4")
    fingerprints = {
        name: write(models / f"{name}.decoder.safetensors", seed) for seed, name in enumerate(["a", "b", "compact"])
    }
    for name, fingerprint in fingerprints.items():
        assert find_weights(fingerprint) == models / f"{name}.decoder.safetensors"
    with pytest.raises(UnknownModelError, match=rf"known: a \({fingerprints['a'].hex()}\), b .*, compact "):
        find_weights(b"\1\2\3\4")


def test_a_file_that_cannot_be_read_hides_no_other(models: Path) -> None:
    (models / "a.decoder.safetensors").mkdir()
    (models / "b.decoder.safetensors").symlink_to("nowhere")
    fingerprint = write(models / "c.decoder.safetensors")
    assert find_weights(fingerprint) == models / "c.decoder.safetensors"
    with pytest.raises(UnknownModelError, match=r"a \(unreadable\), b \(unreadable\), c \("):
        find_weights(bytes(4))


def test_a_folder_of_ones_own_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.delenv("VQCODEC_WEIGHTS", raising=False)
    shipped = folders()
    assert shipped == [root / "vqcodec" / "models", root / "weights"]
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(folder))
    assert folders() == [folder, *shipped]
    fingerprint = write(folder / "compact.decoder.safetensors")
    assert find_weights() == find_weights(fingerprint) == folder / "compact.decoder.safetensors"


def edited(change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Callable[[bytes], bytes]:
    """A damage that changes tensors or metadata of the sound file."""

    def damage(good: bytes) -> bytes:
        contents = load(good)
        metadata: dict[str, str] = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["__metadata__"]
        change(contents, metadata)
        return save(contents, metadata)

    return damage


def configured(**tables: Any) -> Callable[[bytes], bytes]:
    """A damage that changes the configuration."""

    def change(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | tables)

    return edited(change)


MODEL_TABLE: dict[str, Any] = dataclasses.asdict(MODEL)


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
        (lambda good: save(load(good)), "format is not stated, expected vqcodec-decoder-1"),
        (edited(lambda _, m: m.update(format="vqcodec-decoder-2")), "vqcodec-decoder-2, expected vqcodec-decoder-1"),
        (edited(lambda _, m: m.update(config="{")), "not a vqcodec weights file"),
        (edited(lambda _, m: m.update(config="[]")), "expected a table"),
        (edited(lambda _, m: m.update(config="[" * 99_999)), "not a vqcodec weights file"),
        (configured(colours=3), "unknown field colours"),
        (configured(model=MODEL_TABLE | {"lambda_max": 10**999}), "not a vqcodec weights file"),
        (configured(model=MODEL_TABLE | {"widths": [5]}), "do not fit the configuration"),
        (configured(model=MODEL_TABLE | {"widths": [10**7]}), "do not fit the configuration"),
        (configured(prior={"channels": 5}), "prior tensor 0."),
        (edited(lambda t, _: t.clear()), "missing embedding."),
        (edited(lambda t, _: t.__delitem__("vqvae.start")), "do not fit the configuration: missing start"),
        (edited(lambda t, _: t.__delitem__("prior.0.hidden.shift")), "prior has no tensor 0.hidden.shift"),
        (edited(lambda t, _: t.update(x=torch.zeros(1))), "unexpected tensor x"),
        (edited(lambda t, _: t.update({"vqvae.x": torch.zeros(1)})), "do not fit the configuration: unexpected x"),
        (
            edited(lambda t, _: t.update({"vqvae.first.conv.bias": torch.zeros(4)})),
            "do not fit the configuration: unexpected first.conv.bias",
        ),
        (edited(lambda t, _: t.update({"prior.x": torch.zeros(1, dtype=torch.int32)})), "unexpected tensors: x"),
        (edited(lambda t, _: t.update({"vqvae.start": torch.zeros(7)})), "size mismatch for start"),
        (edited(lambda t, _: t.update({"prior.0.quality": t["prior.0.quality"][:, :3].clone()})), "expected integers"),
        (
            edited(lambda t, _: t.update({"prior.0.quality": t["prior.0.quality"].float()})),
            "expected integers [100, 4]",
        ),
        (
            edited(lambda t, _: t.update({"prior.0.hidden.bias": torch.full((8,), 2**60)})),
            "beyond the exact integers below 2^24",
        ),
    ],
)
def test_damaged_decoder_sides(
    good: tuple[bytes, bytes], folder: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = Path("broken.decoder.safetensors")
    path.write_bytes(good[0])
    Codec.load(path, device="cpu")
    path.write_bytes(damage(good[0]))
    refuses(path, reason)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "not a vqcodec weights file"),
        (lambda good: good[:100], "not a vqcodec weights file"),
        (lambda good: good[:-1], "not a vqcodec weights file"),
        (lambda good: good + b"\0", "not a vqcodec weights file"),
        (lambda _: pickle.dumps(print), "not a vqcodec weights file"),
        (edited(lambda _, m: m.update(format="vqcodec-encoder-2")), "vqcodec-encoder-2, expected vqcodec-encoder-1"),
        (edited(lambda _, m: m.update(format="vqcodec-decoder-1")), "vqcodec-decoder-1, expected vqcodec-encoder-1"),
        (edited(lambda _, m: m.update(decoder="0" * 64)), "made for another decoder: its decoder is 00000000, "),
        (edited(lambda _, m: m.update(decoder=m["decoder"][:-1])), "made for another decoder"),
        (edited(lambda _, m: m.__delitem__("decoder")), "made for another decoder: its decoder is not stated, "),
        (edited(lambda _, m: m.update(config="[" * 99_999)), "not a vqcodec weights file"),
        (edited(lambda _, m: m.update(config="[]")), "expected a table"),
        (edited(lambda _, m: m.update(config="{}")), "distortion_weights are None, expected a number above 0 a level"),
        (configured(distortion_weights=[1.0]), "distortion_weights are [1.0], expected a number above 0 a level"),
        (configured(distortion_weights=[1.0, 0.0]), "distortion_weights are [1.0, 0.0]"),
        (configured(distortion_weights=[1.0, float("nan")]), "distortion_weights are [1.0, nan]"),
        (configured(distortion_weights=[1.0, float("inf")]), "distortion_weights are [1.0, inf]"),
        (configured(distortion_weights=[1.0, "2"]), "distortion_weights are [1.0, '2']"),
        (configured(distortion_weights=list(range(10**4))), "distortion_weights are [0, "),
        (configured(distortion="beauty"), "distortion is beauty, expected mse or visual"),
        (configured(distortion=["mse"]), "distortion is ['mse'], expected mse or visual"),
        (edited(lambda t, _: t.clear()), "missing encoder.0."),
        (edited(lambda t, _: t.__delitem__("vqvae.first.conv.bias")), "configuration: missing first.conv.bias"),
        (edited(lambda t, _: t.update({"vqvae.start": torch.zeros(4)})), "configuration: unexpected start"),
        (edited(lambda t, _: t.update({"vqvae.first.conv.bias": torch.zeros(7)})), "size mismatch for first.conv.bias"),
        (edited(lambda t, _: t.update({"prior.x": torch.zeros(1)})), "unexpected tensor prior.x, expected vqvae.*"),
    ],
)
def test_damaged_encoder_sides(
    good: tuple[bytes, bytes], folder: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = folder / "broken.encoder.safetensors"
    Path("broken.decoder.safetensors").write_bytes(good[0])
    path.write_bytes(good[1])
    codec = Codec.load("broken.decoder.safetensors", device="cpu")
    data = codec.compress(PIXELS)
    path.write_bytes(damage(good[1]))
    codec = Codec.load("broken.decoder.safetensors", device="cpu")
    for _ in range(2):  # a file that was refused leaves no half-loaded encoder
        with pytest.raises(WeightsError) as caught:
            codec.compress(PIXELS)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert message.count(str(path)) == 1
        assert "\n" not in message
        assert len(message) < len(str(path)) + 500
        assert reason in message
    codec.decompress(data)
    path.write_bytes(good[1])
    assert codec.compress(PIXELS) == data


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
    good: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sound = good[0]
    at = data.draw(st.integers(0, 8 + int.from_bytes(sound[:8], "little") - 1))
    value = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.decoder.safetensors"
    path.write_bytes(sound[:at] + bytes([value]) + sound[at + 1 :])
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


def test_a_closed_folder_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, bound: None, tmp_path: Path) -> None:
    for mode in (0, 0o300, 0o400):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        write(folder / "compact.decoder.safetensors")
        folder.chmod(mode)
        monkeypatch.setenv("VQCODEC_WEIGHTS", str(folder))
        try:
            with pytest.raises(WeightsError, match=r"Permission denied$"):
                load_weights(find_weights())
        finally:
            folder.chmod(0o755)


def test_a_link_into_a_closed_folder(bound: None, tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    write(shut / "a.decoder.safetensors")
    shutil.copy(shut / "a.decoder.safetensors", tmp_path)
    (tmp_path / "a.encoder.safetensors").symlink_to(shut / "a.encoder.safetensors")
    (tmp_path / "b.decoder.safetensors").symlink_to(shut / "a.decoder.safetensors")
    shut.chmod(0)
    try:
        with pytest.raises(WeightsError, match=r"a\.encoder\.safetensors: cannot be read: Permission denied$"):
            Codec.load(tmp_path / "a.decoder.safetensors", device="cpu").compress(PIXELS)
        with pytest.raises(WeightsError, match=r"b\.decoder\.safetensors: cannot be read: Permission denied$"):
            Codec.load(tmp_path / "b.decoder.safetensors", device="cpu")
    finally:
        shut.chmod(0o755)


def manifest(**sums: str) -> None:
    Path("SHA256SUMS").write_text("".join(f"{digest}  {name}.decoder.safetensors\n" for name, digest in sums.items()))


def test_weights_must_be_what_their_manifest_says(models: Path) -> None:
    fingerprint = write(models / "compact.decoder.safetensors")
    data = Path("compact.decoder.safetensors").read_bytes()
    manifest(compact=hashlib.sha256(data).hexdigest(), other="0" * 64)
    assert load_weights(find_weights(fingerprint)).fingerprint == fingerprint
    # One bit of a weight, which safetensors cannot see.
    Path("compact.decoder.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refuses(models / "compact.decoder.safetensors", "damaged: its SHA-256 is ", "SHA256SUMS says ")
    # It still has its name, so that it is the damage that is reported.
    assert find_weights(fingerprint) == models / "compact.decoder.safetensors"
    # What is not listed is the user's own.
    shutil.copy("compact.decoder.safetensors", "mine.decoder.safetensors")
    assert load_weights("mine.decoder.safetensors").fingerprint != fingerprint


def test_an_encoder_side_must_be_what_its_manifest_says(models: Path) -> None:
    write(models / "a.decoder.safetensors")
    data = Path("a.encoder.safetensors").read_bytes()
    Path("SHA256SUMS").write_text(f"{hashlib.sha256(data).hexdigest()}  a.encoder.safetensors\n")
    assert Codec.load("a.decoder.safetensors", device="cpu").compress(PIXELS)
    Path("a.encoder.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    codec = Codec.load("a.decoder.safetensors", device="cpu")
    with pytest.raises(WeightsError, match=r"a\.encoder\.safetensors: damaged: its SHA-256 is .*SHA256SUMS says "):
        codec.compress(PIXELS)


def test_weights_are_found_by_the_manifest_unread(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = [write(models / f"{name}.decoder.safetensors", seed) for seed, name in enumerate("abc")]
    manifest(a=fingerprints[0].hex() + "0" * 56, b=fingerprints[1].hex() + "0" * 56)
    monkeypatch.setattr("vqcodec.weights._read", lambda path: pytest.fail(f"{path} was read"))
    assert find_weights(fingerprints[1]).name == "b.decoder.safetensors"


@pytest.mark.parametrize("text", ["hello", "0" * 63 + "  a", "0" * 64 + " a", "0" * 64 + "  a\n\n"])
def test_a_manifest_that_is_none(models: Path, text: str) -> None:
    write(models / "compact.decoder.safetensors")
    Path("SHA256SUMS").write_text(text)
    with pytest.raises(WeightsError, match="SHA256SUMS: not a list of SHA-256 sums"):
        load_weights(find_weights())


def test_the_manifest_of_the_shipped_weights_lists_them_all(root: Path) -> None:
    lines = [line.split() for line in (root / "weights" / "SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in lines] == sorted(path.name for path in (root / "weights").glob("*.safetensors"))
    for digest, name in lines:
        assert hashlib.sha256((root / "weights" / name).read_bytes()).hexdigest() == digest
