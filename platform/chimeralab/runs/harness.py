"""A trained run as a model of EleutherAI's lm-evaluation-harness. Import it where the harness is installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from chimeralab.contracts import Task
from chimeralab.errors import DataError, SpecError
from chimeralab.runs.evaluate import inference
from chimeralab.stack.model import StackModel

Scored = tuple[float, bool]
"""Log-likelihood of a continuation in nats, and whether it is what the model would write."""

BATCH_TOKENS = 16_384
MOST_TOKENS = 256  # written where a task says nothing


class Harnessed(TemplateLM):
    """A model with the tokenizer of the task that it was trained on.

    Documents begin after the separator, which ends them too. A context is cut from its left to what fits `length`
    tokens with what follows; a continuation is never cut.
    """

    def __init__(self, model: StackModel, task: Task, length: int, device: torch.device) -> None:
        super().__init__()
        self.model, self.task, self.length, self._device = model, task, length, device

    @property
    def eot_token_id(self) -> int:
        separator = self.task.separator
        assert separator is not None  # `evaluate` has seen to it
        return separator

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.task.encode(string).tolist()

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole documents, each token predicted once, with all the context that fits."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.length, 1):
                windows.append((("", ""), *make_disjoint_window(window)))
                owners.append(number)
        found = [0.0] * len(requests)
        for owner, (likelihood, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            found[owner] += likelihood
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[Scored]:
        cut = [((context + wanted)[:-1][-max(self.length, len(wanted)) :], wanted) for _, context, wanted in requests]
        found: list[Scored] = [(0.0, True)] * len(cut)
        for numbers in _batches([len(inputs) for inputs, _ in cut]):
            for number, scored in zip(numbers, self._score([cut[number] for number in numbers]), strict=True):
                found[number] = scored
        return found

    def _score(self, pairs: list[tuple[list[int], list[int]]]) -> Iterator[Scored]:
        """Inputs of about one length; what fills up the shorter ones comes after, where a causal model looks not."""
        self._require_room(max(len(inputs) for inputs, _ in pairs))
        rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(inputs) for inputs, _ in pairs], batch_first=True)
        logits, _ = self.model(rows.to(self._device))
        for row, (inputs, wanted) in zip(logits, pairs, strict=True):
            scores = row[len(inputs) - len(wanted) : len(inputs)].float().log_softmax(-1)
            targets = torch.tensor(wanted, device=self._device)
            likelihood = scores.gather(1, targets[:, None]).sum()
            yield float(likelihood), bool((scores.argmax(-1) == targets).all())

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [self._write(*request.args) for request in requests]

    def _write(self, context: str, options: dict[str, Any]) -> str:
        """What the model writes after a context, up to the first of `until`, which is left out, or the separator."""
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        most = int(options.get("max_gen_toks") or MOST_TOKENS)
        temperature = float(options.get("temperature") or 0) if options.get("do_sample") else 0.0
        prompt = [self.prefix_token_id, *self.tok_encode(context)][-max(1, self.length - most) :]
        self._require_room(len(prompt) + most)
        draws = torch.Generator().manual_seed(0)
        scores, state = self.model(
            torch.tensor([prompt], device=self._device), self.model.init_state(1, len(prompt) + most)
        )
        scores = scores[:, -1]
        written: list[int] = []
        while len(written) < most:
            token = _next(scores[0].float().cpu(), temperature, draws)
            if token == self.eot_token_id:
                break
            written.append(token)
            text = self.task.decode(torch.tensor(written))
            ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
            if ends:
                return text[: min(ends)]
            scores, state = self.model.step(torch.tensor([token], device=self._device), state)
        return self.task.decode(torch.tensor(written, dtype=torch.int64))

    def _require_room(self, tokens: int) -> None:
        if self.model.room is not None and tokens > self.model.room:
            raise SpecError(
                f"a request takes {tokens} tokens, and the model has learned positions for {self.model.room}",
                place="lm_eval",
                remedy="Take tasks with shorter continuations, or a stack with more positions",
            )


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Numbers of requests, the longest first, some of about one length at a time."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    while order:
        most = max(1, BATCH_TOKENS // max(1, lengths[order[0]]))
        yield order[:most]
        order = order[most:]


def _next(scores: Tensor, temperature: float, draws: torch.Generator) -> int:  # V
    if temperature == 0:
        return int(scores.argmax())
    return int(torch.multinomial((scores / temperature).softmax(-1), 1, generator=draws))


def measure(
    model: StackModel,
    task: Task,
    tests: Sequence[str],
    *,
    length: int,
    device: torch.device,
    cache: Path,
    limit: int | None = None,
    shots: int | None = None,
) -> dict[str, float]:
    """What the harness measures, by "test/metric"; of a metric with a filter, "test/metric-filter".

    Args:
        tests: names that the harness knows, or files of tasks (YAML).
        length: most tokens of context and continuation together.
        cache: where data sets are kept.
        limit: only so many documents of each. shots: examples given before each question, instead of the task's own.

    Raises:
        DataError: there is no such test, or its data cannot be read.
    """
    import datasets.config

    datasets.config.HF_DATASETS_CACHE = cache / "lm_eval"
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    named = [str(Path(test).absolute()) if _is_file(test) else test for test in tests]
    with inference(model):
        try:
            results = simple_evaluate(
                Harnessed(model, task, length, device),
                tasks=named,
                # its own tasks are 14,000 files: they are looked through only where one is asked for by name
                task_manager=TaskManager(include_defaults=not all(map(_is_file, tests))),
                num_fewshot=shots,
                limit=limit,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (OSError, ValueError, KeyError, ConnectionError) as error:
            raise DataError(
                f"the harness refuses: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                place=f"lm_eval {', '.join(tests)}",
                remedy="Paths in a task's file are taken from where the command runs; names need a network",
            ) from error
    assert results is not None
    return {
        f"{test}/{_metric(name)}": float(value)
        for test, values in results["results"].items()
        for name, value in values.items()
        if "," in name and isinstance(value, int | float)
    }


def _is_file(test: str) -> bool:
    return Path(test).suffix in (".yaml", ".yml")


def _metric(name: str) -> str:
    metric, _, kind = name.partition(",")
    return metric if kind == "none" else f"{metric}-{kind}"
