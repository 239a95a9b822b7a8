"""The study bench: look at the codes of the VQ-VAE, draw new ones, and walk between two pictures.

::

    inspect ──────┬─ measure, symbols ── what codes cost, say and do
                  ├─ paint ───────────── numbers as pictures
                  └─ page, report ────── one HTML page, PNG files, JSON
    sample ───────── sampling ────────── code grids drawn from the integer prior
    interpolate ──── interpolation ───── between residuals, and between codes

Only the codec's own classes compute here: there is no second quantiser and no second prior.
"""

__all__: list[str] = []
