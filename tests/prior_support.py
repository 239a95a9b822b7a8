"""A model and a prior that are small enough to look at."""

from vqcodec.config import LevelConfig, ModelConfig, PriorConfig

__all__ = ["NARROW", "TINY"]

TINY = ModelConfig(
    levels=(LevelConfig(8, groups=2, codebook_size=5, stages=1), LevelConfig(4, groups=4, codebook_size=6, stages=2)),
    patch=4,
    widths=(8, 8),
    blocks=(1, 1),
)
NARROW = PriorConfig(channels=8, layers=2, context_layers=1)
