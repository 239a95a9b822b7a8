"""Scripts that measure vqcodec; their results are stored in ``results/``. See README.md."""
