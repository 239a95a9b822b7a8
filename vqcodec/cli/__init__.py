"""The ``vqcodec`` command."""

__all__: list[str] = []
