"""The laboratory: short experiments with the codec's own classes, each with a stored result and a picture."""
