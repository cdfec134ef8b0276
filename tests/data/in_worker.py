"""What tests send to worker processes; it imports nothing that they would not."""

import sys
import time


class Spy:
    """How many rows the inner preparer keeps, and which heavy modules the process has imported."""

    def __init__(self, preparer):
        self.preparer = preparer

    def __call__(self, rows, first):
        return self.preparer(rows, first)[1].counts["kept"], sorted({"torch", "transformers"} & sys.modules.keys())


class Sleeper:
    def __call__(self, rows, first):
        time.sleep(600)
