"""Ours beside a peer, and how cost grows: `python -m bench` measures, `python -m bench.page` makes docs/benchmarks.md of it.

Suites say what is compared (`bench/suites`), subjects do it, each in a process of its own (`bench/subjects`), `harness.py` gives
them their turns and records what came of it.
"""
