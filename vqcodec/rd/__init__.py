"""The benchmark behind ``vqcodec rd-curve``: rates and distortions of real files, and a report of them.

::

    report ─┬─ sweep ──── anchors           measure: real files of every codec, kept as they come
            ├─ result ─── curves            means, rates three ways, BD figures
            ├─ overlay                      published curves
            ├─ tables, plot, page, pictures what people look at
            └─ provenance                   where it all comes from

:func:`vqcodec.rd.report.run` does the whole of it.
"""

__all__: list[str] = []
