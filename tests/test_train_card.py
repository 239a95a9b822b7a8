"""The model card: what it says of a run, from a whole log and from a damaged one."""

import dataclasses
import json
from pathlib import Path

import pytest

from vqcodec.config import Config, PhaseConfig, TrainConfig
from vqcodec.train.card import FEW_STEPS, Measured, model_card, shortfall
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run
from vqcodec.train.monitor import LevelActivity
from vqcodec.weights import encoder_path

ACTIVITY = [
    LevelActivity(False, 4, 1, 2.5, 0.25),
    LevelActivity(False, 8, 2, 3.25, 0.5),
    LevelActivity(True, 12, 12, 1.5, 1.0),
]
MEASURED = Measured("abcd1234", [(50, 0.25, 31.5)], 2, None, 0.0005, ACTIVITY, True)


def write_log(folder: Path, *entries: object, end: str = "") -> None:
    (folder / "log.jsonl").write_text("\n".join([*(json.dumps(entry) for entry in entries), end]))


def card(run: Run, model: Model, config: Config, measured: Measured = MEASURED) -> str:
    path = run.folder / "m.decoder.safetensors"
    path.write_bytes(bytes(1234))
    encoder_path(path).write_bytes(bytes(999))
    return model_card(run, model, config, Path("data"), path, "m", measured)


def test_shortfall(tmp_path: Path) -> None:
    moving = PhaseConfig(muon_lr=0.1)
    settings = TrainConfig(moving, moving, moving, moving)
    enough = [{"phase": phase, "step": FEW_STEPS, "loss": 1.0} for phase in ("vae", "codes", "prior", "joint")]
    write_log(tmp_path, *enough)
    assert shortfall(tmp_path, settings) is None
    write_log(tmp_path, enough[0], {"phase": "codes", "step": FEW_STEPS - 1, "loss": 1.0}, enough[2])
    assert shortfall(tmp_path, settings) == "barely trained, fewer than 500 steps: 499 of codes, 0 of joint"
    still = dataclasses.replace(settings, codes=PhaseConfig(muon_lr=0.0, adam_lr=0.0))
    assert shortfall(tmp_path, still) == "barely trained, fewer than 500 steps: 0 of joint"
    write_log(tmp_path, *enough, {"phase": "joint", "step": 3, "loss": 1.0})  # the last entry counts
    assert shortfall(tmp_path, settings) == "barely trained, fewer than 500 steps: 3 of joint"


def test_live_channels_perplexity_and_usage_are_stated(tiny_state: Run, tiny_model: Model, tiny_config: Config) -> None:
    write_log(tiny_state.folder, {"phase": "vae", "step": 9, "live_share": 0.625})
    text = card(tiny_state, tiny_model, tiny_config)
    assert (
        "Of the trunk's channels, 25% are live at λ = 0.03 on validation images; at the end of phase vae 62%."
        " Fewer than 70%: the codebooks hold less than their size suggests.\n"
    ) in text
    assert "| 0 | 4 | 1 | 2.50 | 25% |\n| 1 | 8 | 2 | 3.25 | 50% |\n| 2 (of pixels) | 12 | 12 | 1.50 | 100% |\n" in text
    lively = dataclasses.replace(MEASURED, activity=[LevelActivity(False, 4, 3, 2.5, 0.25)])
    assert "75% are live at λ = 0.03 on validation images; at the end of phase vae 62%.\n" in card(
        tiny_state, tiny_model, tiny_config, lively
    )


@pytest.mark.parametrize(("has_bfloat16", "arithmetic"), [(True, "bfloat16 autocast"), (False, "float32")])
def test_facts(
    has_bfloat16: bool,
    arithmetic: str,
    tiny_state: Run,
    tiny_model: Model,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqcodec.train.loop.multiplies_bfloat16", lambda: has_bfloat16)
    write_log(tiny_state.folder)
    text = card(tiny_state, tiny_model, tiny_config)
    assert "- Fingerprint: `abcd1234`; decoder side: 1,234 bytes; encoder side: 999 bytes." in text
    assert f"thread(s), {arithmetic}." in text
    assert "by level: 1, 1, 1.\n" in text
    assert "the fixed-point prior changes the bits of the float prior by +0.050%" in text
    assert "Means over the whole files of 2 validation images, compressed to files with effort 0:" in text
    assert "| 50 | 0.2500 | 31.50 |" in text


def test_a_card_is_written_from_a_damaged_log(tiny_state: Run, tiny_model: Model, tiny_config: Config) -> None:
    step, odd = {"phase": "vae", "step": 3, "minutes": 1.5, "loss": 2.5}, {"phase": "vae", "step": 4, "loss": None}
    write_log(tiny_state.folder, step, odd, end='{"pha')
    text = card(tiny_state, tiny_model, tiny_config)
    assert "| vae | 3 | 1.5 | 64 | 4 | 2.5000 |" in text
    assert (
        "**This model is barely trained, fewer than 500 steps: 3 of vae, 0 of codes, 0 of prior, 0 of joint.**" in text
    )
