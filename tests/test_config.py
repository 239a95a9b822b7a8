"""Configurations: round trips, the presets, and an error of one line for every invalid value."""

import dataclasses
import itertools
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec import config
from vqcodec.config import Config, LevelConfig, ModelConfig, PhaseConfig, PriorConfig, TrainConfig
from vqcodec.errors import ConfigError

PRESETS = sorted((Path(__file__).resolve().parents[1] / "presets").glob("*.toml"))

counts = st.integers(1, 4096)
positive = st.floats(1e-9, 1e9)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    patch, depth = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 4))
    places = [*draw(st.lists(st.integers(0, depth - 1), max_size=3)), depth - 1]
    levels = []
    for place in sorted(places, reverse=True):
        stages, groups_a_stage = draw(st.integers(1, 4)), draw(st.integers(1, 6))
        codebook_size = draw(st.integers(2, 4096))
        levels.append(LevelConfig(patch << place, stages * groups_a_stage, draw(counts), codebook_size, stages))
    if draw(st.booleans()):
        dim = draw(st.integers(1, 3 * patch**2))
        levels.append(LevelConfig(patch, 1, dim, draw(st.integers(2, 4096)), 1, pixels=True))
    widths = draw(st.lists(counts, min_size=depth, max_size=depth))
    blocks = draw(st.lists(st.integers(0, 9), min_size=depth, max_size=depth))
    lambda_min, lambda_max = sorted(draw(st.lists(positive, min_size=2, max_size=2, unique=True)))
    inner = draw(st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=4, unique=True))
    scale = draw(st.sampled_from([(), (0.0, *sorted(inner), 1.0)]))
    return ModelConfig(tuple(levels), patch, tuple(widths), tuple(blocks), lambda_min, lambda_max, scale)


minutes = positive | st.just(math.inf)
phases = st.builds(PhaseConfig, counts, minutes, counts, counts, positive, positive, positive, st.integers(0, 999))
trains = st.builds(
    TrainConfig, vae=phases, joint=phases, ema=st.floats(0, 0.99999), codebook=st.sampled_from(["ema", "gradient"])
)
configs = st.builds(Config, models(), st.builds(PriorConfig, counts, st.integers(0, 9), counts), trains)


def toml(value: Any) -> str:
    """A value as TOML: strings and truth values as JSON writes them, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(entry) for entry in value) + "]"
    return json.dumps(value) if isinstance(value, (str, bool)) else repr(value)


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(table)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_table_is_the_default() -> None:
    assert Config.from_dict({}) == Config() == Config(ModelConfig(), PriorConfig(), TrainConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.patch = 8  # type: ignore[misc]


@given(configs)
def test_dicts_and_json_give_the_configuration_back(chosen: Config) -> None:
    assert Config.from_dict(chosen.to_dict()) == chosen
    assert Config.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


def test_toml_gives_the_configuration_back(tmp_path: Path) -> None:
    path = tmp_path / "preset.toml"

    @given(configs)
    def check(chosen: Config) -> None:
        path.write_text("\n".join(f"{name} = {toml(table)}" for name, table in chosen.to_dict().items()))
        assert Config.from_toml(path) == chosen

    check()


def test_what_a_table_leaves_out_keeps_its_own_default() -> None:
    one = {"levels": [{"stride": 16, "groups": 4}], "widths": [8, 8, 8], "blocks": [1, 1, 1]}
    partial = Config.from_dict({"train": {"codes": {"batch": 3}}, "model": one})
    assert partial.train.codes == dataclasses.replace(TrainConfig().codes, batch=3)
    assert partial.train.codes.minutes != PhaseConfig().minutes
    assert partial.model.levels == (dataclasses.replace(LevelConfig(), stride=16, groups=4),)
    assert partial.prior == PriorConfig()


def test_whole_numbers_serve_as_floats() -> None:
    phase = Config.from_dict({"train": {"vae": {"minutes": 5, "clip": 1}}}).train.vae
    assert (phase.minutes, type(phase.minutes), type(phase.clip)) == (5.0, float, float)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_can_be_trained(path: Path) -> None:
    chosen = Config.from_toml(path)
    phases = [getattr(chosen.train, name) for name in ("vae", "codes", "prior", "joint")]
    assert all(phase.crop % chosen.model.levels[0].stride == 0 for phase in phases)
    assert Config.from_dict(chosen.to_dict()) == chosen
    if chosen.train.codebook != "integers":  # codebooks that learn need steps that move
        assert all(phase.steps > 1000 and phase.muon_lr > 0 and phase.adam_lr > 0 for phase in phases)


def test_compact_is_the_default_to_the_letter() -> None:
    """The preset states every setting there is."""
    table = tomllib.loads(PRESETS[0].with_name("compact.toml").read_text(encoding="utf-8"))
    assert toml(table) == toml(_in_order(table, Config().to_dict()))


def _in_order(table: Any, value: Any) -> Any:
    """``value``, with the keys of its dicts in the order of ``table``'s."""
    if isinstance(value, dict):
        assert table.keys() == value.keys()
        return {key: _in_order(table[key], value[key]) for key in table}
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return [_in_order(a, b) for a, b in zip(table, value, strict=True)]
    return value


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_take_minutes(path: Path) -> None:
    train = dataclasses.replace(Config.from_toml(path).train, minutes=2).scaled()
    assert sum(getattr(train, name).minutes for name in config.PHASES) == pytest.approx(1.6)


def test_the_textbook_presets_are_the_textbooks() -> None:
    plain, second = (Config.from_toml(PRESETS[0].with_name(name)) for name in ("vqvae.toml", "vqvae2.toml"))
    published = LevelConfig(stride=4, groups=1, dim=64, codebook_size=512, stages=1)
    assert plain.model.levels == (published,)
    assert second.model.levels == (dataclasses.replace(published, stride=8), published)
    assert (plain.model.widths, second.model.widths) == ((256,), (128, 128))
    assert (plain.train.codebook, second.train.codebook) == ("gradient", "ema")
    assert plain.train.beta == second.train.beta == 0.25


LEVEL = {"stride": 16, "groups": 1, "stages": 1}
MODEL = {"levels": [LEVEL], "widths": [8, 8, 8], "blocks": [1, 1, 1], "lambda_min": 0.0003, "lambda_max": 0.1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": {"levels": []}}, "a model needs at least one level"),
        ({"model": {"levels": [{"stride": 0}]}}, "level stride is 0, expected at least 1"),
        ({"model": {"levels": [LEVEL | {"groups": 0}]}}, "a level needs at least one group of one channel"),
        ({"model": {"levels": [LEVEL | {"dim": 0}]}}, "a level needs at least one group of one channel"),
        ({"model": {"levels": [{"codebook_size": 1}]}}, "codebook_size is 1, expected 2..4096"),
        ({"model": {"levels": [{"codebook_size": 4097}]}}, "codebook_size is 4097, expected 2..4096"),
        ({"model": {"levels": [{"stages": 5}]}}, "stages is 5, expected a divisor of the 24 groups"),
        ({"model": {"levels": [{"stages": 0}]}}, "stages is 0, expected a divisor of the 24 groups"),
        ({"model": {"widths": [8, 8]}}, "widths has 2 entries and blocks has 3, expected the same number"),
        ({"model": {"widths": [], "blocks": []}}, "widths has 0 entries and blocks has 0, expected the same number"),
        ({"model": {"widths": [8, 0, 8]}}, "a trunk needs widths >= 1 and blocks >= 0"),
        ({"model": {"blocks": [0, 1, -1]}}, "a trunk needs widths >= 1 and blocks >= 0"),
        (
            {"model": {"levels": [LEVEL | {"stride": 8}, LEVEL]}},
            "levels have strides [8, 16], expected coarsest first",
        ),
        (
            {"model": {"levels": [LEVEL, LEVEL | {"stride": 2}]}},
            "a level has stride 2, expected one of [4, 8, 16]",
        ),
        ({"model": {"levels": [LEVEL | {"stride": 8}]}}, "the coarsest level has stride 8, expected 16"),
        ({"model": {"patch": 0}}, "a level has stride 16, expected one of [0, 0, 0]"),
        ({"model": {"lambda_min": 0.0}}, "lambda range is 0.0..0.1, expected 0 < min < max"),
        ({"model": {"lambda_min": 1}}, "lambda range is 1.0..0.1, expected 0 < min < max"),
        ({"model": {"lambda_max": math.inf}}, "lambda range is 0.0003..inf, expected 0 < min < max"),
        ({"model": {"lambda_max": math.nan}}, "lambda range is 0.0003..nan, expected 0 < min < max"),
        (
            {"model": {"levels": [LEVEL | {"pixels": True}]}},
            "levels of pixels must come after those of the trunk",
        ),
        (
            {"model": {"levels": [LEVEL, LEVEL | {"stride": 8, "pixels": True}, LEVEL | {"stride": 8}]}},
            "levels of pixels must come after those of the trunk",
        ),
        (
            {"model": {"levels": [LEVEL, LEVEL | {"stride": 4, "pixels": True, "groups": 7, "dim": 7, "stages": 1}]}},
            "a level of pixels at stride 4 has 7 groups of 7 channels, expected at most 48 channels",
        ),
        *(
            (
                {"model": {"quality_scale": scale}},
                f"quality_scale is {[float(x) for x in scale]}, expected numbers that rise from 0 to 1",
            )
            for scale in ([0], [1], [0, 0.5], [0.1, 1], [0, 0.5, 0.5, 1], [0, 0.6, 0.5, 1], [0, math.nan, 1])
        ),
        ({"prior": {"channels": 0}}, "prior channels is 0, expected at least 1"),
        ({"prior": {"layers": -1}}, "a prior needs layers >= 0 and context_layers >= 1"),
        ({"prior": {"context_layers": 0}}, "a prior needs layers >= 0 and context_layers >= 1"),
        ({"train": {"vae": {"steps": 0}}}, "a phase needs steps >= 1 and minutes > 0"),
        ({"train": {"vae": {"minutes": 0}}}, "a phase needs steps >= 1 and minutes > 0"),
        ({"train": {"codes": {"batch": 0}}}, "a phase needs batch >= 1 and crop >= 1"),
        ({"train": {"codes": {"crop": 0}}}, "a phase needs batch >= 1 and crop >= 1"),
        ({"train": {"prior": {"muon_lr": -0.1}}}, "a phase needs learning rates >= 0"),
        ({"train": {"prior": {"adam_lr": math.nan}}}, "a phase needs learning rates >= 0"),
        ({"train": {"joint": {"clip": 0}}}, "a phase needs clip > 0 and warmup >= 0"),
        ({"train": {"joint": {"warmup": -1}}}, "a phase needs clip > 0 and warmup >= 0"),
        ({"train": {"ema": 1}}, "ema is 1.0, expected 0 <= ema < 1"),
        ({"train": {"codebook": "EMA"}}, "codebook is 'EMA', expected 'ema', 'gradient' or 'integers'"),
        ({"model": {"sigma_min": 0.0}}, "sigma_min is 0.0, expected 0.01..1"),
        ({"train": 3}, "TrainConfig is 3, expected a table"),
        ({"model": {"levels": {}}}, "ModelConfig.levels is {}, expected a list"),
        ({"model": {"levels": [16]}}, "LevelConfig is 16, expected a table"),
        ({"model": {"widths": [8, "8", 8]}}, "ModelConfig.widths is '8', expected int"),
        ({"model": {"patch": 4.0}}, "ModelConfig.patch is 4.0, expected int"),
        ({"model": {"patch": True}}, "ModelConfig.patch is True, expected int"),
        ({"model": {"lambda_max": True}}, "ModelConfig.lambda_max is True, expected float"),
        ({"train": {"freeze_encoder": 1}}, "TrainConfig.freeze_encoder is 1, expected bool"),
        ({"train": {"codebook": 1}}, "TrainConfig.codebook is 1, expected str"),
        ({"train": {"vae": {"clip": "1"}}}, "PhaseConfig.clip is '1', expected float"),
        ({"trian": {}, "a": 1}, "unknown field a, trian in Config; it has model, prior, train"),
    ],
)
def test_refusals(table: dict[str, Any], message: str) -> None:
    assert refused(table | {"model": MODEL | table["model"]} if "model" in table else table) == message


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"model": {"Patch": 4}}, ModelConfig),
        ({"model": {"levels": [{"k": 9}]}}, LevelConfig),
        ({"prior": {"width": 9}}, PriorConfig),
        ({"train": {"lr": 1}}, TrainConfig),
        ({"train": {"joint": {"lr": 1}}}, PhaseConfig),
    ],
)
def test_unknown_fields_are_named_with_those_that_exist(table: dict[str, Any], kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    assert re.fullmatch(rf"unknown field \w+ in {kind.__name__}; it has {', '.join(names)}", refused(table))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            b"[model]\npatch = 3\nlevels = [{stride = 16}]\nwidths = [8]\nblocks = [1]",
            "a level has stride 16, expected one of [3]",
        ),
        (b"[modle]", "unknown field modle in Config; it has model, prior, train"),
        (b"[model", "not TOML: Expected ']' at the end of a table declaration (at end of document)"),
        (b"a = \xff", "not TOML: 'utf-8' codec can't decode byte 0xff in position 4: invalid start byte"),
        (b"[train]\nseed = " + b"9" * 9999, "not TOML: Exceeds the limit"),
    ],
)
def test_toml_refusals_name_the_file(contents: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "preset.toml"
    path.write_bytes(contents)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {message}")):
        Config.from_toml(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: cannot be read: \w"):
            Config.from_toml(path)


def test_phases_share_out_the_minutes_that_export_and_reading_leave() -> None:
    vae, codes, prior, joint = (PhaseConfig(minutes=minutes, steps=5) for minutes in (6, 2, 3, 1))
    train = TrainConfig(vae=vae, codes=codes, prior=prior, joint=joint, minutes=30)
    shared = train.scaled()  # a fifth is the export's
    assert [getattr(shared, name).minutes for name in config.PHASES] == pytest.approx([12, 4, 6, 2])
    assert all(getattr(shared, name).steps == config.ENDLESS for name in config.PHASES)
    assert dataclasses.replace(shared, vae=vae, codes=codes, prior=prior, joint=joint) == train
    assert train.scaled(12.0).vae.minutes == pytest.approx(6)
    assert train.scaled(40.0).vae.minutes == pytest.approx(0.3)  # a fiftieth remains, however late it is
    assert train.scaled(18.0, ("prior", "joint")).joint.minutes == pytest.approx(
        1.5
    )  # what the others overran is made up
    assert dataclasses.replace(train, minutes=620).scaled().vae.minutes == pytest.approx(300)  # the export has enough
    assert TrainConfig().scaled(12.0) == TrainConfig()


def test_a_total_of_minutes_needs_those_of_each_phase() -> None:
    with pytest.raises(ConfigError, match=r"^a total of minutes needs the minutes of each phase; set those of codes$"):
        TrainConfig(codes=PhaseConfig(), minutes=3)


def test_lambda_goes_through_its_ends_and_is_log_linear() -> None:
    model = ModelConfig(lambda_min=0.002, lambda_max=0.5)
    lambdas = [model.lmbda(quality) for quality in range(config.QUALITY_MIN, config.QUALITY_MAX + 1)]
    assert (lambdas[0], lambdas[-1]) == pytest.approx((0.002, 0.5), rel=1e-12)
    assert all(low < high for low, high in itertools.pairwise(lambdas))
    assert [b / a for a, b in itertools.pairwise(lambdas)] == pytest.approx([250 ** (1 / 99)] * 99)
    assert model.lmbda(50.5) == pytest.approx(math.sqrt(0.002 * 0.5))


def test_lambda_follows_the_quality_scale() -> None:
    model = ModelConfig(lambda_min=0.002, lambda_max=0.5, quality_scale=(0, 0.1, 0.7, 1))
    for quality, place in [(1, 0), (17.5, 0.05), (34, 0.1), (50.5, 0.4), (67, 0.7), (100, 1)]:
        assert model.lmbda(quality) == pytest.approx(0.002 * 250**place)
    lambdas = [model.lmbda(quality) for quality in range(config.QUALITY_MIN, config.QUALITY_MAX + 1)]
    assert all(low < high for low, high in itertools.pairwise(lambdas))
