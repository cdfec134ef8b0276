"""Rollouts of many turns: whose each token is, what is learnt, what is told to the model, and how a rollout ends."""

import threading

import numpy as np
import pytest
import torch

from burnish.data.tree import build_tree
from burnish.rewards.samples import Failure
from burnish.rollout.environments import Environment, History
from burnish.rollout.examples import examples_of
from burnish.rollout.groups import Conversation, Group
from burnish.rollout.tools import ToolError
from burnish.rollout.turns import Turns
from tests.chat_tokenizers import byte_level
from tests.data.small_templates import QWEN3, SPECIAL
from tests.laws.trees import alone
from tests.models.families import tiny_model
from tests.rollout.calculator import Calculator, Sums, calculate
from tests.rollout.scripted import CHATML_TOOLS, END, Scripted, ask, chatml, drawn, play, shown

TOKENIZER = chatml()
ROW = {"prompt": [{"role": "user", "content": "What is 2 + 3?"}], "answer": 5.0}
CALL = ask("calculate", expression="2 + 3") + END


def turns_of(max_tokens=300, tokenizer=TOKENIZER, **options):
    return Turns(tokenizer, max_tokens, exact=True, **options)


def one(texts, row=ROW, *, reason="length", tokenizer=TOKENIZER, **options):
    (rollout,), sampler = play(turns_of(tokenizer=tokenizer, **options), tokenizer, [texts], row, reason=reason)
    return rollout, sampler


def ids(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


# Tokens


def test_a_tool_call():
    rollout, sampler = one([f"I compute.\n{CALL}", f"It is 5.{END}"], tools=[calculate])
    (path,) = rollout.paths
    assert shown(TOKENIZER, path) == f"⟦I compute.\n{CALL}⟧\n‹<|im_start|>tool\n5{END}\n›<|im_start|>assistant\n⟦It is 5.{END}⟧"
    assert rollout.completion == [
        {
            "role": "assistant",
            "content": "I compute.",
            "tool_calls": [{"type": "function", "function": {"name": "calculate", "arguments": {"expression": "2 + 3"}}}],
        },
        {"role": "tool", "name": "calculate", "content": "5"},
        {"role": "assistant", "content": "It is 5."},
    ]
    assert rollout.finish_reason == "stop"
    none = dict.fromkeys(["rewrites", "tools/failures", "tools/timeouts", "tools/malformed"], 0)
    assert rollout.counts == {"turns": 2, "tools/call_frequency": 1, **none}
    first, second = sampler.requests
    assert (first.first, second.first) == (0, len(ids(f"I compute.\n{CALL}")))
    assert second.token_ids.tolist() == [*first.token_ids, *rollout.token_ids][: len(second.token_ids)]


def test_tokens_are_the_models_own():
    """Odd spacing is neither put right nor encoded again; the log-probs and the policy's version stay beside each token."""
    said = '<tool_call>{ "arguments":{"expression":"2+3"},\n\n"name":"calculate"}</tool_call>  ' + END
    rollout, _ = one([said, f"5{END}"], tools=[calculate])
    model = [segment for segment in rollout.segments if segment.source == "model"]
    assert [segment.token_ids.tolist() for segment in model] == [ids(said), ids(f"5{END}")]
    assert np.concatenate([segment.behaviour_logp for segment in model]).tolist() == [-float(i) for i in range(len(ids(said)) + 2)]
    assert {segment.policy_version for segment in model} == {3}
    assert all(segment.behaviour_logp is None and not segment.trained for segment in rollout.segments if segment.source != "model")
    assert all(segment.trained and segment.sampled_logp is None for segment in model)


def test_of_a_sampler_that_is_not_exact_both_log_probs_are_kept():
    turns = Turns(TOKENIZER, 50, exact=False)
    (rollout,), _ = play(turns, TOKENIZER, [[f"hi{END}"]], ROW)
    (segment,) = rollout.segments
    assert segment.sampled_logp.tolist() == segment.behaviour_logp.tolist()


def test_it_is_a_conversation_as_rollouts_are_made_of():
    conversation: Conversation = turns_of(tools=[calculate])
    assert callable(conversation.begin)


# Tools


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ask("calculate", expression="1 / 0"), "error: ZeroDivisionError: division by zero"),
        (ask("calculate", number=3), "error: TypeError: calculate() got an unexpected keyword argument 'number'"),
        (ask("subtract"), "error: there is no tool 'subtract'; there are: calculate"),
    ],
)
def test_failures_are_observations(said, told):
    rollout, _ = one([said + END, f"Oh.{END}"], tools=[calculate])
    assert rollout.completion[1] == {"role": "tool", "name": rollout.completion[1]["name"], "content": told}
    assert (rollout.counts["tools/call_frequency"], rollout.counts["tools/failures"]) == (1, 1)
    assert f"tool\n{told}{END}" in shown(TOKENIZER, rollout.paths[0])
    assert rollout.completion[-1]["content"] == "Oh."


def test_a_malformed_call_is_told():
    rollout, _ = one([f'<tool_call>{{"name": }}</tool_call>{END}', CALL, f"5{END}"], tools=[calculate])
    assert rollout.completion[1]["content"].startswith("error: the tool call cannot be read: it is not valid JSON")
    assert [message["role"] for message in rollout.completion] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert (rollout.counts["tools/malformed"], rollout.counts["tools/call_frequency"]) == (1, 1)


def test_several_calls_at_once_and_async():
    async def double(x: int) -> int:
        """
        Doubles.

        Args:
            x: A number.
        """
        return 2 * x

    said = f"{ask('double', x=4)}\n{ask('calculate', expression='1 + 1')}{END}"
    rollout, _ = one([said, f"ok{END}"], tools=[calculate, double])
    assert [message["content"] for message in rollout.completion[1:3]] == ["8", "2"]


def test_a_tool_that_never_returns_ends_the_rollout():
    """With an observation, whose tokens the model never reads: they are not there."""
    stuck = threading.Event()

    def hang() -> str:
        """Hangs."""
        stuck.wait()
        return ""

    rollout, sampler = one([ask("hang") + END, "never said"], tools=[hang], tool_timeout=0.8)
    stuck.set()
    assert rollout.completion[-1] == {"role": "tool", "name": "hang", "content": "error: hang took more than 0.8 s"}
    assert shown(TOKENIZER, rollout.paths[0]) == f"⟦{ask('hang')}{END}⟧"
    assert (rollout.counts["tools/timeouts"], rollout.counts["tools/failures"], len(sampler.requests)) == (1, 1, 1)


@pytest.mark.parametrize(("rounds", "turns"), [(0, 1), (1, 2), (2, 3), (None, 5)])
def test_max_tool_calling_iterations(rounds, turns):
    """The turn after the last answer may call again; that call is not made."""
    rollout, _ = one([CALL] * 4 + [f"5{END}"], tools=[calculate], max_tool_calling_iterations=rounds, max_tokens=900)
    assert rollout.counts["turns"] == turns
    assert rollout.counts["tools/call_frequency"] == turns - 1
    assert rollout.finish_reason == "stop"


def test_tools_count_in_the_length():
    """Of 120 tokens the call has n, and what stands between has m: the next turn may have 120 - n - m."""
    rollout, sampler = one([CALL, "x " * 200], tools=[calculate], max_tokens=120)
    call, *between, last = [len(segment) for segment in rollout.segments]
    assert sampler.requests[1].max_tokens == 120 - call - sum(between) == last
    assert len(rollout.token_ids) == 120
    assert rollout.finish_reason == "length"


def test_an_observation_that_leaves_no_room_is_not_made():
    """As in TRL: neither its tokens nor its message."""
    room = len(ids(CALL))
    rollout, sampler = one([CALL, "never said"], tools=[calculate], max_tokens=room + 5)
    assert (rollout.finish_reason, len(rollout.completion), len(rollout.token_ids), len(sampler.requests)) == ("length", 1, room, 1)
    rollout, _ = one([CALL, "never said"], tools=[calculate], max_length=len(sampler.requests[0].token_ids) + room + 5)
    assert (rollout.finish_reason, len(rollout.completion)) == ("length", 1)


def test_a_call_that_was_cut_off_is_not_made():
    rollout, _ = one([CALL], tools=[calculate], max_tokens=len(ids(CALL)) - 1)
    assert (rollout.finish_reason, rollout.counts["tools/call_frequency"]) == ("length", 0)


def test_a_turn_that_a_text_stopped_is_ended_by_the_template():
    """With ``stop=["</tool_call>"]`` there is no end-of-turn token; the template's is put there, and not learnt."""
    rollout, _ = one([CALL.removesuffix(END), f"5{END}"], tools=[calculate], reason="stop")
    said = CALL.removesuffix(END)
    assert shown(TOKENIZER, rollout.paths[0]) == f"⟦{said}⟧{END}\n‹<|im_start|>tool\n5{END}\n›<|im_start|>assistant\n⟦5{END}⟧"


def test_prompts_are_told_of_the_tools():
    (rendered,) = turns_of(tools=[calculate]).render([ROW])
    assert '"name": "calculate"' in TOKENIZER.decode(rendered.tolist())
    assert "calculate" not in TOKENIZER.decode(turns_of().render([ROW])[0].tolist())


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "What is 2 + 3?"}, "this prompt is text; give it as messages"),
        ({**ROW, "tools": [{"type": "function"}]}, "tools of its own, which nothing here can call"),
        ({"answer": 5}, "no prompt, and no environment begins one"),
    ],
)
def test_rows_that_do_not_go_with_tools(row, why):
    with pytest.raises(ToolError, match=why):
        turns_of(tools=[calculate]).render([row])


WITH_IDS = (
    "{% if tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('no id') }}{% endif %}"
    "[TOOL_RESULTS]{{ m.tool_call_id }}: {{ m.content }}[/TOOL_RESULTS]{% elif m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('no id') }}{% endif %}{{ call.id + call.function.name }}{% endfor %}]</s>"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
"""Like Mistral's: it insists on ids, and has no generation prompt."""


@pytest.mark.parametrize(("number", "told"), [('"id": "abcdefghi", ', "abcdefghi"), ("", "call00000")])
def test_templates_that_insist_on_ids(number, told):
    """A result has the id that the model gave the call, where it gave one."""
    tokenizer = byte_level(WITH_IDS, ["[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"], eos="</s>")
    said = f'[TOOL_CALLS] [{{{number}"name": "calculate", "arguments": {{"expression": "2 + 3"}}}}]</s>'
    rollout, _ = one([said, "5</s>"], tools=[calculate], tokenizer=tokenizer)
    assert shown(tokenizer, rollout.paths[0]) == f"⟦{said}⟧‹[TOOL_RESULTS]{told}: 5[/TOOL_RESULTS]›⟦5</s>⟧"
    assert rollout.counts["tools/malformed"] == rollout.counts["rewrites"] == 0


# Environments


def test_an_environment_as_in_trl():
    texts = [[CALL, ask("hand_in", answer=5) + END, f"Done.{END}"], [ask("hand_in", answer=6) + END, f"Done.{END}"], [f"No idea.{END}"]]
    turns = turns_of(environment_factory=Calculator)
    rollouts, _ = play(turns, TOKENIZER, texts, ROW)
    assert turns.reward_names == ("Calculator",)
    assert [rollout.rewards for rollout in rollouts] == [(1.0,), (0.0,), (None,)]
    assert rollouts[0].completion[3] == {"role": "tool", "name": "hand_in", "content": "taken"}
    assert [rollout.counts["tools/call_frequency"] for rollout in rollouts] == [2, 1, 0]


def test_what_reset_says_is_put_at_the_end_of_the_prompt():
    class Told(Calculator):
        def reset(self, answer, **row):
            super().reset(answer)
            return f" (below {2 * answer:g})"

    rollout, sampler = one([f"5{END}"], environment_factory=Told)
    assert "What is 2 + 3? (below 10)<|im_end|>" in TOKENIZER.decode(sampler.requests[0].token_ids.tolist())
    assert not rollout.paths[0].own_prompt


def test_instances_are_used_again_but_not_two_at_a_time():
    made = []

    class Counted(Calculator):
        def __init__(self):
            made.append(self)

    turns = turns_of(environment_factory=Counted)
    for _ in range(3):
        play(turns, TOKENIZER, [[f"5{END}"], [f"5{END}"]], ROW)
    assert len(made) == 2


def test_an_environment_with_a_hanging_tool_is_not_used_again():
    stuck, made = threading.Event(), []

    class Hanging(Calculator):
        def __init__(self):
            made.append(self)

        def hang(self) -> str:
            """Hangs."""
            stuck.wait()
            return ""

    turns = turns_of(environment_factory=Hanging, tool_timeout=0.8)
    (rollout,), _ = play(turns, TOKENIZER, [[ask("hang") + END]], ROW)
    assert rollout.rewards == (Failure("Hanging was abandoned", "a call of it never ended"),)
    turns.render([ROW])
    stuck.set()
    assert len(made) == 2


def test_each_row_has_its_environment():
    class Other(Calculator):
        pass

    turns = turns_of(environment_factory={"one": Calculator, "two": Other})
    assert turns.reward_names == ("Calculator", "Other")
    (rollout,), _ = play(turns, TOKENIZER, [[ask("hand_in", answer=5) + END, f"!{END}"]], {**ROW, "environment": "two"})
    assert rollout.rewards == (None, 1.0)
    with pytest.raises(ToolError, match="A row's environment is 'three'; there are 'one', 'two'"):
        turns.render([{**ROW, "environment": "three"}])


def test_an_environment_of_steps():
    """Three tries, worth 1, ½ and ¼."""
    row = {"expression": "2 + 3"}
    texts = [[f"4{END}", f"5{END}"], [f"5{END}"], [f"1{END}", f"2{END}", f"3{END}"]]
    rollouts, _ = play(turns_of(environment_factory=Sums), TOKENIZER, texts, row)
    assert [rollout.rewards for rollout in rollouts] == [(0.5,), (1.0,), (0.0,)]
    assert rollouts[0].extras == {"turn_rewards": [0.0, 0.5]}
    assert shown(TOKENIZER, rollouts[0].paths[0]) == f"⟦4{END}⟧\n‹<|im_start|>user\nNo, try again.{END}\n›<|im_start|>assistant\n⟦5{END}⟧"
    assert [len(rollout.completion) for rollout in rollouts] == [3, 1, 5]


def test_a_completion_that_is_cut_off_before_the_first_step_is_worth_nothing():
    """0, for it has earned nothing; where steps were taken, and none of them said what it is worth, there is no reward."""
    rollout, _ = one([f"5{END}"], {"expression": "2 + 3"}, environment_factory=Sums, max_tokens=1)
    assert (rollout.finish_reason, rollout.rewards) == ("length", (0.0,))
    rollout, _ = one([f"c{END}"], environment_factory=Forgets)
    assert rollout.rewards == (None,)


def test_steps_with_tools():
    """A turn with a call is not a step."""
    rollout, _ = one([CALL, f"5{END}"], {"expression": "2 + 3"}, environment_factory=Sums, tools=[calculate])
    assert rollout.rewards == (1.0,)
    assert rollout.counts["tools/call_frequency"] == 1


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda message: 1 / 0, "Broken raised ZeroDivisionError"),
        (lambda message: ("well", float("nan"), False), "Broken raised ValueError"),
        (lambda message: "well", "Broken raised ValueError"),
        (lambda message: (5, 0.0, False), "Broken raised TypeError"),
        (lambda message: threading.Event().wait(), "Broken took more than 0.8 s"),
    ],
)
def test_a_step_that_fails_is_a_failure_and_not_a_number(step, reason):
    class Broken(Environment):
        def step(self, message):
            return step(message)

    rollout, _ = one([f"5{END}", "never said"], environment_factory=Broken, tool_timeout=0.8)
    (failure,) = rollout.rewards
    assert isinstance(failure, Failure)
    assert failure.reason == reason


def test_what_cannot_be_reset_ends_the_run():
    with pytest.raises(ToolError, match="The environment Sums cannot be reset for a row: it raised KeyError: 'expression'"):
        turns_of(environment_factory=Sums).render([ROW])
    with pytest.raises(ToolError, match="The environment int has no reset"):
        turns_of(environment_factory=int)


def test_an_environment_of_text():
    """Without a chat template: what it says is put behind what the model said, as it is."""

    class Echo(Environment):
        def step(self, message):
            return f"\n{message['content']}?", 1.0, message["content"] == "b"

    rollout, _ = one([f"a{END}", f"b{END}"], {"prompt": "go"}, environment_factory=Echo)
    assert shown(TOKENIZER, rollout.paths[0]) == f"⟦a{END}⟧‹\na?›⟦b{END}⟧"
    assert (rollout.completion, rollout.rewards) == ("a\na?b", (2.0,))


# Histories that are rewritten


class Forgets(Environment):
    """After each turn only the last answer is left of the conversation."""

    def step(self, message):
        return History([{"role": "user", "content": f"You said {message['content']}."}]), None, message["content"] == "c"


def test_an_environment_that_rewrites_the_history():
    """Each turn is learnt in the context in which it was said: a path of its own."""
    rollout, sampler = one([f"a{END}", f"b{END}", f"c{END}"], environment_factory=Forgets)
    assert [path.own_prompt for path in rollout.paths] == [False, True, True]
    assert shown(TOKENIZER, rollout.paths[1]) == "{<|im_start|>user\nYou said a.<|im_end|>\n<|im_start|>assistant\n}⟦b<|im_end|>⟧"
    assert rollout.counts == {"turns": 3, "rewrites": 2}
    for path, request in zip(rollout.paths[1:], sampler.requests[1:], strict=True):
        assert path.segments[0].token_ids.tolist() == request.token_ids.tolist()
    assert [message["content"] for message in rollout.completion] == ["a", "b", "c"]


THINKS = byte_level(QWEN3, SPECIAL, eos=END, bos="<s>")


class Asks(Environment):
    def step(self, message):
        return "And now?", None, message["content"] == "b"


def test_a_template_that_drops_reasoning():
    """Qwen3's: the first answer's reasoning is not there when the second is sampled, and so not when it is learnt."""
    rollout, sampler = one([f"<think>\nhm\n</think>\n\na{END}", f"b{END}"], environment_factory=Asks, tokenizer=THINKS)
    first, second = rollout.paths
    assert shown(THINKS, first) == f"⟦<think>\nhm\n</think>\n\na{END}⟧"
    assert not second.own_prompt
    assert shown(THINKS, second) == "{a<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n}⟦b<|im_end|>⟧"
    assert "hm" not in THINKS.decode(sampler.requests[1].token_ids.tolist())
    assert rollout.counts["rewrites"] == 1


def test_a_template_that_has_nothing_to_drop_goes_on():
    rollout, _ = one([f"a{END}", f"b{END}"], environment_factory=Asks, tokenizer=THINKS)
    assert (len(rollout.paths), rollout.counts["rewrites"]) == (1, 0)


def test_a_prompt_that_the_model_goes_on_with():
    """Its last message is the assistant's: what is said completes it."""
    row = {"prompt": [*ROW["prompt"], {"role": "assistant", "content": "It "}]}
    rollout, sampler = one([f"is{END}", f"b{END}"], row, environment_factory=Asks)
    assert TOKENIZER.decode(sampler.requests[0].token_ids.tolist()).endswith("assistant\nIt ")
    assert (len(rollout.paths), len(rollout.completion)) == (1, 3)


# What is learnt


class Spoken(Scripted):
    """With the log-probs that a model gives to what is said, in the context in which it is."""

    def __init__(self, model, *given):
        super().__init__(*given)
        self.model = model

    @torch.no_grad()
    def sample(self, requests, then):
        yield from super().sample(requests, lambda one: then(self._scored(one)))

    def _scored(self, completion):
        context, said = completion.request.token_ids.tolist(), completion.token_ids.tolist()
        logits = self.model(input_ids=torch.tensor([context + said])).logits[0]
        log_p = logits.log_softmax(-1)[len(context) - 1 : -1].gather(1, torch.tensor(said)[:, None])[:, 0]
        completion.logp[:] = log_p.numpy()
        return completion


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([[f"I compute.\n{CALL}", CALL, f"It is 5.{END}"], [f"Five.{END}"]], {"tools": [calculate]}),
        ([[f"a{END}", f"b{END}", f"c{END}"], [f"c{END}"]], {"environment_factory": Forgets}),
        ([[f"<think>\nhm\n</think>\n\na{END}", f"b{END}"], [f"b{END}"]], {"environment_factory": Asks}),
    ],
    ids=["tools", "rewritten", "reasoning dropped"],
)
def test_two_voices_over_turns(texts, options, float64):
    """The log-probs of the tree that is learnt from are those of the requests that were sampled from, turn by turn."""
    tokenizer = chatml(CHATML_TOOLS if "tools" in options else QWEN3)
    turns = Turns(tokenizer, 300, exact=True, **options)
    model = tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=1024)
    sampler, prompt = Spoken(model, tokenizer, texts), drawn(turns, ROW)
    ended = [one for one, over in sampler.sample([turns.begin(prompt, i) for i in range(len(texts))], turns.then) if over]
    rollouts = tuple(turns.rollout(completion) for completion in ended)
    group = Group(prompt=prompt, rollouts=tuple(sorted(rollouts, key=lambda rollout: rollout.sample)))
    examples = examples_of(group, [True] * len(texts), [1.0] * len(texts), keep_all=False)
    for example in examples:
        tree = build_tree([example])
        assert tree.N > 1
        torch.testing.assert_close(alone(model, tree).double(), tree.behaviour_logp_N.double(), rtol=0, atol=1e-5)
    assert sum(example.trained_tokens for example in examples) == sum(len(ids) for texts in map(said_by(tokenizer), texts) for ids in texts)


def said_by(tokenizer):
    return lambda texts: [tokenizer.encode(text, add_special_tokens=False) for text in texts]
