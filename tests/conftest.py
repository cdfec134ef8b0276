"""Every test run keeps its prepared data to itself and is the same on every machine, and says what it ran of the documentation."""

import os
import tempfile

os.environ.setdefault("BURNISH_CACHE", tempfile.mkdtemp(prefix="burnish-tests-"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_terminal_summary(terminalreporter):
    """Of the pages whose blocks were run: how many blocks there are of each fate."""
    passed = [report.nodeid for report in terminalreporter.stats.get("passed", ()) if "docs/test_blocks.py::test_blocks[" in report.nodeid]
    if not passed:
        return
    from tests.docs.pages import fates

    found = fates({nodeid.partition("[")[2][:-1] for nodeid in passed})
    told = ", ".join(f"{count} {fate}" for fate, count in found.items())
    terminalreporter.write_line(f"blocks of README and docs, on {len(passed)} pages that passed: {told}")
