"""Every test run keeps its prepared data to itself and is the same on every machine."""

import os
import tempfile

os.environ.setdefault("BURNISH_CACHE", tempfile.mkdtemp(prefix="burnish-tests-"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
