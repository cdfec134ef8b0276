"""How cost grows, of ours alone: the exponent that was measured beside the one that is expected.

An exponent is the slope of log cost over log size, by least squares: 0 for a cost that does not grow, 1 for one that grows in proportion.
Models are Llamas of random weights. Attention's own share is measured apart, through the code that the layers call, forward and backward,
with the same rows, and subtracted.
"""

from __future__ import annotations

from bench.arithmetic import exponent
from bench.harness import Case, Options, Side

TITLE = "How cost grows"
SMALL = {"hidden": 384, "layers": 2, "vocabulary": 8192}
GRPO = {"prompts": 2, "completion": 32}
ROUNDS = 2
"""A point is a median of three steps already."""


def cases(options: Options) -> list[Case]:
    return [sequence(options), prompt(options), group(options), model(options), vocabulary(options), tokens(options), streamed(options)]


def one_process(name: str, points: tuple[int, ...], options: Options, x: tuple[float, ...] = (), steps: int = 3, **spec: object) -> Side:
    common = {"curve": name, "points": points, "threads": options.threads, "steps": steps}
    return Side(name=name, subject="curves", spec=common | spec, x=x or points)


def sequence(options: Options) -> Case:
    points = (128, 512, 4096) if options.short else (128, 256, 512, 1024, 2048, 4096)
    return Case(
        name="sequence",
        title="tokens of a row",
        about="SFT steps of 4,096 tokens, cut into rows of equal length: CPU seconds per thousand trained tokens.",
        sides=[one_process("sequence", points, options, tokens=4096, **SMALL)],
        shown=("without_attention", "with_attention"),
        growth={"without_attention": 0.0},
        axis="tokens of a row",
        rounds=ROUNDS,
    )


def prompt(options: Options) -> Case:
    points = (32, 128, 512) if options.short else (32, 64, 128, 256, 512, 1024)
    return Case(
        name="prompt",
        title="tokens of a prompt",
        about="GRPO steps of two prompts with 4 and with 20 completions of 32 tokens: CPU seconds of one more completion.",
        sides=[one_process("prompt", points, options, groups=(4, 20), **GRPO, **SMALL)],
        shown=("extra_completion",),
        growth={"extra_completion": 0.0},
        axis="tokens of a prompt",
        rounds=ROUNDS,
    )


def group(options: Options) -> Case:
    points, length = (8, 16, 32, 64), 64
    computed = [length + size * GRPO["completion"] for size in points]
    return Case(
        name="group",
        title="completions of a prompt",
        about="GRPO steps of two prompts of 64 tokens, completions of 32: CPU seconds. Expected is the exponent of the tokens that "
        "are computed, the prompt once; what does not depend on them makes it smaller.",
        sides=[one_process("group", points, options, prompt=length, **GRPO, **SMALL)],
        shown=("cpu_s",),
        growth={"cpu_s": round(exponent(points, computed), 2)},
        axis="completions of a prompt",
        rounds=ROUNDS,
    )


def model(options: Options) -> Case:
    points = (256, 512, 768) if options.short else (256, 384, 512, 768, 1024)
    layers, words = 4, SMALL["vocabulary"]
    parameters = tuple(float(layers * 13 * h * h + words * h) for h in points)
    return Case(
        name="model",
        title="parameters",
        about="SFT steps of 512 tokens in rows of 128: CPU seconds, models of four layers that grow wider.",
        sides=[one_process("model", points, options, parameters, length=128, tokens=512, layers=layers, vocabulary=words)],
        shown=("cpu_s",),
        growth={"cpu_s": 1.0},
        axis="parameters",
        rounds=ROUNDS,
    )


def head_side(tokens: int, words: int, x: float, options: Options) -> Side:
    spec = {"tokens": tokens, "vocabulary": words, "hidden": 512, "threads": options.threads}
    return Side(name=f"{tokens} × {words}", subject="head", spec=spec, x=(x,))


def head(name: str, axis: str, about: str, sides: list[Side]) -> Case:
    return Case(
        name=name,
        title=axis,
        about=f"The vocabulary head alone, {about}: memory beyond the gradients, and CPU seconds.",
        sides=sides,
        shown=("extra_bytes", "cpu_s"),
        growth={"extra_bytes": 0.0, "cpu_s": 1.0},
        axis=axis,
        rounds=ROUNDS,
    )


def vocabulary(options: Options) -> Case:
    points = (16384, 32768, 131072) if options.short else (16384, 32768, 65536, 131072, 262144)
    sides = [head_side(512, words, words, options) for words in points]
    return head("vocabulary", "words of the vocabulary", "512 tokens of 512 numbers", sides)


def tokens(options: Options) -> Case:
    points = (256, 1024, 2048) if options.short else (256, 512, 1024, 2048, 4096, 8192)
    return head("head-tokens", "trained tokens", "32,768 words", [head_side(n, 32768, n, options) for n in points])


def streamed(options: Options) -> Case:
    points = (10_000, 100_000, 300_000) if options.short else (10_000, 100_000, 1_000_000, 10_000_000)
    common = {"model": str(options.model), "threads": options.threads}
    return Case(
        name="rows",
        title="rows of a file",
        about="Files of rows of about 64 bytes, streamed to their end and made examples of: the most memory of its own that the process "
        "held (pages of the file, which the system maps and may drop, aside), and CPU seconds.",
        sides=[Side(name=f"{rows}", subject="stream", spec=common | {"rows": rows}, x=(rows,)) for rows in points],
        shown=("own_bytes", "cpu_s"),
        growth={"own_bytes": 0.0, "cpu_s": 1.0},
        axis="rows of a file",
        rounds=1,
    )
