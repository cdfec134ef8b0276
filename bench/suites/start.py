"""How fast the command line and the imports answer: whole processes, beside TRL's. A turn's figure is the median of ten processes of each
side; where one takes seconds of three, and the short form has one round of these. Before its first turn each side starts once unmeasured,
so that its files are in memory.

The mistyped flag lacks a letter of `learning_rate`; TRL is told beside it to use the CPU, or it would speak of a missing GPU instead.
"""

from __future__ import annotations

import sys

from bench.harness import Case, Options, Side
from bench.processes import trl_python

TITLE = "Starting"
COMMANDS = {
    "burnish": ("-c", "import sys; from burnish.cli.main import main; sys.exit(main(sys.argv[1:]))"),
    "trl": ("-c", "import sys; from trl.cli import main; sys.argv[0] = 'trl'; sys.exit(main())"),
}
TYPO = ("sft", "--lerning_rate", "1")
Words = tuple[str, ...]
SECONDS = 3
"""Processes in a turn of what takes seconds."""
QUESTIONS: dict[str, tuple[str, Words, Words, int]] = {
    # name: title, what ours and theirs are asked, and the status that both end with
    "help": ("`--help`", (*COMMANDS["burnish"], "--help"), (*COMMANDS["trl"], "--help"), 0),
    "sft-help": ("`sft --help`", (*COMMANDS["burnish"], "sft", "--help"), (*COMMANDS["trl"], "sft", "--help"), 0),
    "typo": ("a mistyped flag", (*COMMANDS["burnish"], *TYPO), (*COMMANDS["trl"], *TYPO, "--use_cpu", "true", "--bf16", "false"), 2),
    "import": ("`import burnish`, `import trl`", ("-c", "import burnish"), ("-c", "import trl"), 0),
    "import-trainer": ("importing `GRPOTrainer`", ("-c", "from burnish import GRPOTrainer"), ("-c", "from trl import GRPOTrainer"), 0),
}


def cases(options: Options) -> list[Case]:
    trl = str(trl_python(options.trl_python))
    found = []
    for name, (title, own, their, status) in QUESTIONS.items():
        moment = name in ("help", "import")
        ours = Side(name="ours", command=(sys.executable, *own), status=status, repeats=SECONDS if name == "import-trainer" else 10)
        theirs = Side(name="TRL", command=(trl, *their), status=status, repeats=10 if moment else SECONDS)
        rounds = None if moment or not options.short else 1
        found.append(Case(name=name, title=title, about="", sides=(ours, theirs), shown=("cpu_s", "wall_s", "peak_bytes"), rounds=rounds))
    return found
