"""The benchmark behind ``vqcodec rd-curve``: rates and distortions of real files, and a report on them.

::

    report ─┬─ sources, sweep ─── anchors, store  measure: real files of every codec, each result kept at once
            ├─ analysis ───────── curves          means, rates under three models, BD figures
            ├─ overlay                            published curves
            ├─ result                             the figures as dataclasses, JSON and CSV
            ├─ tables, plot, page, pictures       for people to look at
            └─ provenance                         versions, machine, model and command
    blind ──── equal                              a page to compare pictures of equal bytes by eye

:func:`vqcodec.rd.report.make_report` does all of it. Frozen dataclasses go from module to module; dicts are made only
where JSON is written.
"""

__all__: list[str] = []
