"""The profile of a pipeline: what its time goes to, which number of workers feeds a model, and what is in the way.

`runner` measures, `measured` is what it finds, `analysis` and `sentences` judge it, without a clock. Others show it:
`screen` as text, `page` as HTML and `picture` as PNG what `drawn` says is to be drawn, `tracing` for Perfetto.
"""
