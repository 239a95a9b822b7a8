"""The prior and the range coder, in integers that are the same on every machine; nothing here knows pixels."""

__all__: list[str] = []
