"""The chunked cross-entropy and its gradients equal torch's, for every size of chunk."""

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


@pytest.mark.parametrize("tokens_per_chunk", [TOKENS + 1, TOKENS, 10, 1])
def test_loss_and_gradients_equal_torchs(group: dist.ProcessGroup, tokens_per_chunk: int) -> None:
    torch.manual_seed(1)
    hidden = torch.randn(TOKENS, HIDDEN, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float32, requires_grad=True)
    labels = torch.randint(VOCABULARY, (TOKENS,))
    grad_losses = torch.rand(TOKENS)

    def gradients(losses: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return losses, *torch.autograd.grad((losses * grad_losses).sum(), (hidden, weight))

    expected = gradients(
        torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="none")
    )
    found = gradients(
        chunked_cross_entropy(hidden, weight, labels, group, tokens_per_chunk * VOCABULARY)
    )
    for ours, torchs in zip(found, expected, strict=True):
        assert torch.allclose(ours, torchs, rtol=1e-5, atol=1e-5)


def test_backward_can_run_twice(group: dist.ProcessGroup) -> None:
    """The first pass must not overwrite the saved gradient."""
    hidden = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN)
    loss = chunked_cross_entropy(hidden, weight, torch.zeros(TOKENS, dtype=torch.long), group).sum()
    [first] = torch.autograd.grad(loss, hidden, retain_graph=True)
    [second] = torch.autograd.grad(loss, hidden)
    assert torch.equal(first, second)
