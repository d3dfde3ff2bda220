"""Benchmarks of Understudy against other proxies, side by side in one run.

`python -m benchmarks` (or `make bench`) runs them; `benchmarks.catalogue` lists them. A benchmark
is one module that proves one claim: it builds what it needs from `stage`, `load` and `peers`,
and returns a `report.Report`. Every number it prints comes from that run.
"""
