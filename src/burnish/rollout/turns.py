"""Rollouts of many turns: the model speaks, tools and environments answer, and it speaks again.

    turns = Turns(tokenizer, 512, exact=sampler.exact, tools=[calculator])            # or environment_factory=Guess
    prompts = Prompts(dataset, turns.render, …)                                       # prompts with the tools' schemas in them
    requests = [turns.begin(prompt, sample) for sample in range(8)]
    for completion in sampler.sample(requests, sampling, turns.then): …
    turns.rollout(completion)                                                         # after `then` has said None

A turn with calls of tools is answered by their results, one message each; any other turn by the environment, if there is one that takes
steps, and else it is the last. A turn that was cut off is the last, too. Token ids are only ever appended: the model's as it sampled them,
trained; those of results and of the template between them, not (`between.py`). Where the history is rewritten instead, by an environment
(`History`) or by a template that drops reasoning when something follows, the rollout goes on in a path of its own, which begins with the
new history: every turn is learnt in the context in which it was sampled. Rewrites are counted.

`max_completion_length` is of all turns and of what stands between them. An observation that leaves no room for another turn is not made
part of the rollout, which ends with ``finish_reason="length"``. Nor are the tokens of an observation with which a rollout ends, since the
model never reads it: a call that was abandoned at its deadline is in the messages, and not in the tokens.

`then` runs tools while the sampler waits, each call no longer than `tool_timeout` seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from burnish.data.formats import CHAT
from burnish.data.messages import to_messages
from burnish.data.readers import chat_arguments, conversation
from burnish.rollout.between import Between
from burnish.rollout.calls import Said, TurnReader
from burnish.rollout.environments import Environment, Environments, Episode, History
from burnish.rollout.groups import Path, Prompt, Rollout, sampled_segment
from burnish.rollout.prompts import PromptRenderer, prompt_of
from burnish.rollout.sampler import Completion, Request
from burnish.rollout.tools import Deadline, ToolError, run, schemas_of
from burnish.types import Segment


@dataclass(slots=True, kw_only=True)
class _Course:
    """A rollout under way."""

    prompt: Prompt
    row: Mapping[str, Any]
    """As it is rendered: with the tools, and the prompt that the environment began with."""
    episode: Episode
    context: np.ndarray
    """Of the turn that is being sampled."""
    segments: list[Segment]
    """Of the path that is going on."""
    own_prompt: bool
    said: list[dict[str, Any]] = field(default_factory=list)
    """Messages after the prompt."""
    text: str = ""
    """Of plain text, all after the prompt."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """What the template is given of before and after: the prompt and `said`, or what an environment put in their place."""
    paths: list[Path] = field(default_factory=list)
    used: int = 0
    """Tokens of all turns and of what stands between them."""
    sampled: int = 0
    rounds: int = 0
    """Turns that tools have answered."""
    counts: Counter[str] = field(default_factory=Counter)
    finish_reason: str = ""


class Turns:
    """What happens between a prompt and the end of a rollout: a `Conversation` with tools and environments.

    `max_tokens`: TRL's `max_completion_length`; `exact`: the sampler's; `tools`: functions; `environment_factory`: as in
    `environments.py`; `max_tool_calling_iterations`: turns that tools may answer, None: any number; `max_length`: most tokens of a context
    and its completion together; `tool_timeout`: seconds for a call. Raises ToolError and ChatTemplateError for what cannot be used.
    """

    def __init__(
        self, tokenizer: Any, max_tokens: int, *, exact: bool, tools: Sequence[Callable[..., Any]] = (), environment_factory: Any = None,
        max_tool_calling_iterations: int | None = None, max_length: int | None = None, tool_timeout: float = 60.0,
        stop_token_ids: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self._tokenizer, self._max_tokens, self._exact = tokenizer, max_tokens, exact
        self._rounds, self._max_length = max_tool_calling_iterations, max_length
        self._stops = tuple({tokenizer.eos_token_id, *stop_token_ids} - {None})
        self._deadline = Deadline(tool_timeout)
        self._environments = Environments(environment_factory, schemas_of, tools)
        self._reader, self._prompts = TurnReader(tokenizer, self._stops), PromptRenderer(tokenizer, self._stops)
        self._between: Between | None = None
        self._courses: dict[tuple[str, int], _Course] = {}

    @property
    def reward_names(self) -> tuple[str, ...]:
        """What environments' rewards are called, in the order in which they stand at the head of `Rollout.rewards`."""
        return self._environments.reward_names

    # The beginning

    def render(self, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """int32 ids of each row's prompt with the tools in it, and as an environment begins it. Raises DataError, ToolError."""
        opened = []
        for row in rows:
            episode, shown = self._open(row)
            self._environments.give_back(row, episode)
            opened.append(shown)
        return self._prompts(opened)

    def begin(self, prompt: Prompt, sample: int) -> Request:
        """The first turn. An environment is reset for each rollout. Raises DataError, ToolError."""
        episode, row = self._open(prompt.row)
        ids = self._prompts([row])[0] if self._environments.any or episode.schemas else prompt.token_ids
        own = not np.array_equal(ids, prompt.token_ids)
        course = _Course(prompt=prompt, row=row, episode=episode, context=ids, segments=[_given(ids)] if own else [], own_prompt=own)
        if not isinstance(row["prompt"], str):
            course.history = to_messages(conversation(row["prompt"]))
        self._courses[prompt.draw, sample] = course
        return self._request(course, sample)

    def _open(self, row: Mapping[str, Any]) -> tuple[Episode, dict[str, Any]]:
        episode = self._environments.take(row)
        given = dict(row)
        if any(row.get(name) is not None for name in ("prompt", *CHAT)):
            prompt = prompt_of(row, "The row")
            given["prompt"] = prompt if isinstance(prompt, str) else to_messages(conversation(prompt))
        prompt = episode.prompt(self._environments.reset_row(given), self._deadline)
        if prompt is None:
            raise ToolError(f"The row with the columns {list(row)} has no prompt, and no environment begins one; give it a prompt.")
        if episode.schemas:
            if isinstance(prompt, str):
                raise ToolError("Tools are told to the model by a chat template, and this prompt is text; give it as messages.")
            if row.get("tools"):
                raise ToolError("The row has tools of its own, which nothing here can call; leave its column 'tools' out.")
            given["tools"] = list(episode.schemas)
        return episode, {**given, "prompt": prompt}

    def _request(self, course: _Course, sample: int) -> Request:
        room = self._max_tokens - course.used
        if self._max_length is not None:
            room = min(room, self._max_length - len(course.context))
        return Request(prompt_id=course.prompt.draw, sample=sample, token_ids=course.context, max_tokens=max(1, room), first=course.sampled)

    # Between two turns

    def then(self, completion: Completion) -> Request | None:
        """Answers a turn: the request for the next one, or None when the rollout is over. Raises ChatTemplateError."""
        course = self._courses[completion.request.prompt_id, completion.request.sample]
        course.segments.append(sampled_segment(completion, exact=self._exact))
        course.used += len(completion.token_ids)
        course.sampled += len(completion.token_ids)
        course.counts["turns"] += 1
        said = self._hear(course, completion)
        course.finish_reason = completion.finish_reason
        if completion.finish_reason == "length":
            return None
        answer = self._answer(course, said)
        if answer is None or not self._go_on(course, answer, completion):
            return None
        return self._request(course, completion.request.sample)

    def _hear(self, course: _Course, completion: Completion) -> Said:
        """What was said becomes part of the rollout."""
        if isinstance(course.row["prompt"], str):
            text = self._reader.text(completion.token_ids)
            course.text += text
            return Said(message={"role": "assistant", "content": text})
        said = self._reader(completion.token_ids, course.context, course.episode.schemas)
        course.said.append(said.message)
        if course.history[-1]["role"] == "assistant":  # a prompt's last turn that the model went on with
            began = course.history.pop()
            said_whole = {**said.message, "content": began["content"] + said.message["content"]}
            course.history.append(said_whole)
        else:
            course.history.append(said.message)
        return said

    def _answer(self, course: _Course, said: Said) -> History | list[dict[str, Any]] | str | None:
        """Messages, or text where the prompt is text, or a new history; None where the rollout is over."""
        if said.calls or said.malformed:
            return self._call(course, said) if self._rounds is None or course.rounds < self._rounds else None
        observation = course.episode.step(said.message, self._deadline)
        if isinstance(course.row["prompt"], str) and not isinstance(observation, str | None):
            raise ToolError(f"The environment {course.episode.name} answers a prompt of text with messages; let it say text.")
        if isinstance(observation, History | None) or isinstance(course.row["prompt"], str):
            return observation  # type: ignore[return-value]
        return [{"role": "user", "content": observation}] if isinstance(observation, str) else to_messages(observation)

    def _call(self, course: _Course, said: Said) -> list[dict[str, Any]] | None:
        course.rounds += 1
        results = run(said.calls, course.episode.functions, self._deadline)
        course.counts["tools/call_frequency"] += len(said.calls)
        course.counts["tools/failures"] += sum(result.failed for result in results)
        course.counts["tools/timeouts"] += sum(result.abandoned for result in results)
        course.counts["tools/malformed"] += len(said.malformed)
        messages = [
            {"role": "tool", "name": result.name, "content": result.content} | ({"tool_call_id": call.id} if call.id else {})
            for call, result in zip(said.calls, results, strict=True)
        ]
        messages += [{"role": "tool", "name": "tool", "content": sentence} for sentence in said.malformed]
        if any(result.abandoned for result in results):
            course.episode.lost = course.episode.instance is not None and not isinstance(course.episode.instance, Environment)
            course.said += messages
            return None
        return messages

    def _go_on(self, course: _Course, answer: History | list[dict[str, Any]] | str, completion: Completion) -> bool:
        """Puts the answer at the end of the tokens, or begins another path. False where there is no room for another turn."""
        between, options = self._made_between(), chat_arguments(dict(course.row))
        ended = int(completion.token_ids[-1]) in self._stops
        before = np.concatenate([course.context, completion.token_ids])
        rewritten = isinstance(answer, History)
        if isinstance(answer, str):
            after, messages = between.plain(answer), list[dict[str, Any]]()
        else:
            messages = to_messages(answer.messages) if isinstance(answer, History) else answer
            rewritten |= not rewritten and not between.keeps(course.history, messages, options)
            after = () if rewritten else between.after_turn(messages, options, ended=ended)
        history = messages if isinstance(answer, History) else [*course.history, *messages]
        if rewritten:
            context = between.context(history, options)
            added = max(0, len(context) - len(before))
        else:
            context = np.concatenate([before, *(segment.token_ids for segment in after)])
            added = len(context) - len(before)
        if course.used + added >= self._max_tokens or (self._max_length is not None and len(context) >= self._max_length):
            course.finish_reason = "length"
            return False
        if rewritten:
            course.counts["rewrites"] += 1
            course.paths.append(Path(segments=tuple(course.segments), own_prompt=course.own_prompt))
            course.segments, course.own_prompt = self._from(course, context)
        course.segments += after
        course.used, course.context, course.history = course.used + added, context, history
        course.said += [] if isinstance(answer, History) else messages
        course.text += answer if isinstance(answer, str) else ""
        return True

    def _from(self, course: _Course, context: np.ndarray) -> tuple[list[Segment], bool]:
        """A path that begins with `context`: after the group's prompt, where that is how it begins."""
        shared = len(course.prompt.token_ids)
        if np.array_equal(context[:shared], course.prompt.token_ids):
            return ([_given(context[shared:])] if len(context) > shared else []), False
        return [_given(context)], True

    def _made_between(self) -> Between:
        self._between = self._between or Between(self._tokenizer, self._stops)
        return self._between

    # The end

    def rollout(self, completion: Completion) -> Rollout:
        """After `then` has said None: the whole of it, with the rewards of environments."""
        key = (completion.request.prompt_id, completion.request.sample)
        course = self._courses.pop(key)
        rewards = self._environments.rewards(course.episode, self._deadline)
        self._environments.give_back(course.prompt.row, course.episode)
        counts: dict[str, float] = dict(course.counts)
        if course.episode.functions:
            counts = {"tools/call_frequency": 0, "tools/failures": 0, "tools/timeouts": 0, "tools/malformed": 0} | counts
        steps = course.episode.rewards
        return Rollout(
            sample=completion.request.sample,
            paths=(*course.paths, Path(segments=tuple(course.segments), own_prompt=course.own_prompt)),
            completion=course.text if isinstance(course.row["prompt"], str) else course.said,
            finish_reason=course.finish_reason,
            rewards=rewards,
            extras={"turn_rewards": list(steps)} if len(steps) > 1 else {},
            counts={"rewrites": 0} | counts,
        )


def _given(token_ids: np.ndarray) -> Segment:
    return Segment(token_ids=token_ids, source="prompt", trained=False)
