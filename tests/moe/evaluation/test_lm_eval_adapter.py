"""lm-eval's tasks on our models: a local task, and each score against one worked out alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.distributed import run_ranks
from tests.support.trained_runs import command, run_command, train_run

pytestmark = pytest.mark.needs("eval")

QUESTIONS = [
    {"text": "a model learns which", "choices": ["expert", "q z"], "gold": 0},
    {"text": "and the router", "choices": ["zz xx", "sends"], "gold": 1},
    {"text": "reads the next", "choices": ["token", "token"], "gold": 0},
]
CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs:
  data_files: {file}
  cache_dir: {cache}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
"""
WRITE = """
task: local_write
dataset_path: json
dataset_kwargs:
  data_files: {file}
  cache_dir: {cache}
test_split: train
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: ""
generation_kwargs:
  until: [" "]
  max_gen_toks: 5
metric_list:
  - metric: exact_match
"""
ROLL = """
task: local_roll
dataset_path: json
dataset_kwargs:
  data_files: {file}
  cache_dir: {cache}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: byte_perplexity
"""


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run") / "run"
    train_run(store, place)
    return place


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    for name, text in (("choice", CHOICE), ("write", WRITE), ("roll", ROLL)):
        (folder / f"{name}.yaml").write_text(text.format(file=file, cache=folder / "cache"))
    return folder


def _offline(commands: list[tuple[str, ...]]) -> list[tuple[int, str, str]]:
    """Run commands in one process: lm-eval takes seconds to import."""
    import os

    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return [run_command(command) for command in commands]


@pytest.fixture(scope="module")
def said(run: Path, tasks: Path) -> list[tuple[int, str, str]]:
    """What is said of three tasks of ours, and of one that nobody knows."""
    names = "local_choice,local_roll,local_write"
    commands = [
        ("eval", str(run), "--tasks", "no_such_task"),
        ("eval", str(run), "--tasks", names, "--task-path", str(tasks), "--device", "cpu",
         "--json"),
    ]  # fmt: skip
    results: list[tuple[int, str, str]] = run_ranks(1, _offline, commands)[0]
    return results


def _alone(run: Path) -> tuple[list[list[float]], float]:
    """Every choice's log-probability, and the nats of all texts, from logits."""
    import torch

    from moe.evaluation.loading import loaded_model

    def score(model: Any, context: str, text: str) -> float:
        ids = [256, *(context + text).encode()] if not context else [*(context + text).encode()]
        count = len(text.encode())
        tokens = torch.tensor([ids])
        logits = model.chunk(tokens, torch.arange(len(ids))[None], None)[0]
        logs = torch.log_softmax(logits[:-1].double(), -1)
        return float(logs.gather(1, tokens[0, 1:, None])[-count:].sum())

    with loaded_model(run, device="cpu") as model, torch.no_grad():
        choices = [[score(model, q["text"], " " + c) for c in q["choices"]] for q in QUESTIONS]
        return choices, sum(score(model, "", q["text"]) for q in QUESTIONS)


def test_tasks_equal_what_logits_say(run: Path, said: list[tuple[int, str, str]]) -> None:
    code, out, err = said[1]
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])["tasks"]
    choices, nats = run_ranks(1, _alone, run)[0]
    gold = [q["gold"] for q in QUESTIONS]
    right = [row.index(max(row)) == answer for row, answer in zip(choices, gold, strict=True)]
    assert found["local_choice"]["acc"] == pytest.approx(sum(right) / 3)
    import math

    num_bytes = sum(len(q["text"].encode()) for q in QUESTIONS)
    expected = math.exp(-nats / num_bytes)
    assert found["local_roll"]["byte_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert found["local_write"]["exact_match"] in {0.0, 1 / 3, 2 / 3, 1.0}


def _answers(run: Path) -> list[str]:
    from moe.evaluation.lm_eval_adapter import HarnessModel
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.text_interface import text_interface_of

    def ask(text: str, **wanted: Any) -> Any:
        return type("Request", (), {"args": (text, wanted)})

    with loaded_model(run, device="cpu") as model:
        harness = HarnessModel(model, text_interface_of(run))
        requests = [
            ask("the router", max_gen_toks=8),
            ask("the router", max_gen_toks=8, until=["e"]),
            ask("long " * 40, max_gen_toks=8),
        ]
        return harness.generate_until(requests)


def test_answers_stop_where_they_are_told(run: Path) -> None:
    whole, cut, long = run_ranks(1, _answers, run)[0]
    assert cut == whole.split("e")[0]
    assert len(whole) <= 8 and len(long) <= 8


def test_unknown_task_is_one_line(said: list[tuple[int, str, str]]) -> None:
    code, out, err = said[0]
    assert (code, out) == (2, "")
    assert "lm-eval knows no such task" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tasks copa --split train", "--split is of the loss: leave --tasks out"),
        ("--tasks copa --routing", "--routing is of the loss: leave --tasks out"),
        ("--tasks copa --record-routing r", "--record-routing is of the loss: leave --tasks out"),
        ("--shots 0", "--shots goes with --tasks"),
    ],
)
def test_options_that_would_change_nothing_are_refused(words: str, said: str) -> None:
    assert command("eval", "a run", *words.split()) == (2, "", f"moe: {said}\n")
