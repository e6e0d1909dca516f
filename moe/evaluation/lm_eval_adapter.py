"""Models of ours in EleutherAI's lm-evaluation-harness (extra `eval`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from moe.errors import ConfigError
from moe.evaluation.generation import Sampling, generate
from moe.evaluation.loading import LoadedModel
from moe.evaluation.scoring import score_continuations
from moe.evaluation.text_interface import TextInterface

MAX_NEW_TOKENS = 256
"""New tokens of an answer whose task sets no limit."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A loaded model behind the harness's interface."""

    def __init__(self, model: LoadedModel, language: TextInterface) -> None:
        super().__init__()
        self._model, self._language = model, language

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token."""
        return int(self._language.tokenizer.info.eos_id)

    @property
    def prefix_token_id(self) -> int:
        """The context of a text that has none: what begins a text, else what ends one."""
        begin = self._language.bos_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the tokens of a text, after those that the tokenizer's template puts before it.

        The harness asks without a flag for contexts, alone and with their continuation, and with
        `add_special_tokens = False` for a text that gets `prefix_token_id` as its context. A text
        that spells out the token that begins it gets no second one.
        """
        if add_special_tokens is False:
            return self._plain(string)
        begin, bos_id = self._language.bos_token, self._language.bos_id
        if add_special_tokens is None and begin and bos_id is not None and string.startswith(begin):
            return [bos_id, *self._plain(string.removeprefix(begin))]
        return self._language.encode([string])[0]

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._language.tokenizer.encode(text).tolist()
        return ids

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        scores = score_continuations(self._model, pairs)
        return [(score.log_probability, score.is_greedy) for score in scores]

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """Return the log-probability of each text as a whole, in windows of the model's length."""
        log_probabilities = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._model.config.max_seq_len,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            scores = score_continuations(self._model, pairs)
            log_probabilities.append(sum(score.log_probability for score in scores))
        return log_probabilities

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """Continue each text until one of its stop texts."""
        return [self._answer(*request.args) for request in requests]

    def _answer(self, context: str, settings: dict[str, Any]) -> str:
        length = self._model.config.max_seq_len
        new = min(int(settings.get("max_gen_toks", MAX_NEW_TOKENS)), length - 1)
        prompt = self.tok_encode(context)[-(length - new) :]
        temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0
        (done,) = generate(
            self._model.chunk,
            [prompt or [self.prefix_token_id]],
            Sampling(
                max_new_tokens=new,
                temperature=temperature,
                top_p=float(settings.get("top_p", 1.0)),
            ),
            stop_ids=self._language.stop_ids,
            max_seq_len=length,
            vocab_size=self._language.tokenizer.info.vocab_size,
        )
        text = self._language.tokenizer.decode(done.tokens)
        stops = settings.get("until") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            text = text.split(stop)[0] if stop else text
        return text


def run_tasks(
    model: LoadedModel,
    language: TextInterface,
    tasks: Sequence[str],
    *,
    task_path: Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run tasks of the harness; returns each task's metrics.

    Args:
        model: The model.
        language: Its tokenizer.
        tasks: Names of tasks.
        task_path: Folder with more tasks (YAML).
        shots: Examples before each question; None: the task's own number.
        limit: Most questions of a task; None: all.

    Raises:
        ConfigError: No such task.
    """
    manager = TaskManager(include_path=None if task_path is None else str(task_path))
    unknown = [name for name in tasks if not manager.match_tasks([name])]
    if unknown:
        raise ConfigError(
            f"--tasks {unknown[0]}: lm-eval knows no such task: give its name, or its folder with"
            " --task-path"
        )
    output = simple_evaluate(
        model=HarnessModel(model, language),
        tasks=list(tasks),
        task_manager=manager,
        num_fewshot=shots,
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
    )
    results: dict[str, Any] = output["results"]
    return {name: _numbers(values) for name, values in results.items()}


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Return a task's metrics by their plain names; the harness adds a filter's."""
    return {
        key.removesuffix(",none"): value
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
