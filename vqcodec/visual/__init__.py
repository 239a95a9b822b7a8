"""Distortions that follow what people see, differentiable in the reconstruction.

Nothing here knows networks or bytes.
"""

__all__: list[str] = []
