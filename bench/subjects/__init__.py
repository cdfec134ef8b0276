"""What runs in a process of its own: `python -m bench.subjects.NAME SPECS ANSWERS`; see `inside.py`."""
