"""The chunked head's loss and gradients against torch's own, however the tokens are cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from moe.model.cross_entropy import chunked_cross_entropy

TOKENS, HIDDEN, VOCABULARY = 37, 16, 50


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dist.ProcessGroup]:
    file: Path = tmp_path_factory.mktemp("group") / "store"
    store = dist.FileStore(str(file), 1)
    yield dist.ProcessGroupGloo(store, 0, 1)


@pytest.mark.parametrize("tokens_at_once", [TOKENS + 1, TOKENS, 10, 1])
def test_loss_and_gradients_are_torchs(group: dist.ProcessGroup, tokens_at_once: int) -> None:
    torch.manual_seed(1)
    hidden = torch.randn(TOKENS, HIDDEN, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float32, requires_grad=True)
    labels = torch.randint(VOCABULARY, (TOKENS,))
    share = torch.rand(TOKENS)

    def gradients(losses: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return losses, *torch.autograd.grad((losses * share).sum(), (hidden, weight))

    expected = gradients(
        torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="none")
    )
    found = gradients(
        chunked_cross_entropy(hidden, weight, labels, group, tokens_at_once * VOCABULARY)
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_backward_may_be_asked_twice(group: dist.ProcessGroup) -> None:
    """The kept softmax must not be used up by the first."""
    hidden = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN)
    loss = chunked_cross_entropy(hidden, weight, torch.zeros(TOKENS, dtype=torch.long), group).sum()
    [first] = torch.autograd.grad(loss, hidden, retain_graph=True)
    [second] = torch.autograd.grad(loss, hidden)
    assert torch.equal(first, second)
