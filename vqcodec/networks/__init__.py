"""The VQ-VAE and the prior's training form, in floats; nothing here knows bytes."""

__all__: list[str] = []
