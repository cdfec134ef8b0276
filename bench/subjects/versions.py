"""The versions in one environment; its specification is empty."""

from __future__ import annotations

from bench.subjects.inside import serve, versions

if __name__ == "__main__":
    serve(lambda spec: {"measures": {}, "facts": versions()})
