"""Bytes and pixels in files and streams, without torch."""

__all__: list[str] = []
