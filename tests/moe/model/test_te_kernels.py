"""Every architecture option in kernel set `te`: the numbers of kernel set `torch`.

On a GPU Transformer Engine's kernels compute, elsewhere the reference of its extension.
"""

import pytest

from moe.config.kernels import build_fault
from parallel.precision.recipes import Precision
from tests.support.architecture_options import CONFIGS
from tests.support.transformer_engine.comparison import (
    Compared,
    compare,
    initial_differences,
)
from tests.support.transformer_engine.locate import has_extension
from tests.support.transformer_engine.ranks import run_te_ranks

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
TE = Precision(kernels="te")
REFUSED = ("qk_norm_full",)
NAMES = tuple(name for name in CONFIGS if name not in REFUSED)
DOCUMENTS = ("sparse", "window", "sinks_window", "latent_yarn", "predicting_twice", "gpt_oss")
UNFUSED = ("dense", "window", "sinks", "latent")


@pytest.fixture(scope="module")
def fp32() -> dict[str, Compared]:
    return run_te_ranks(1, compare, NAMES, "fp32")[0]


@pytest.fixture(scope="module")
def bf16() -> dict[str, Compared]:
    return run_te_ranks(1, compare, NAMES, "bf16")[0]


@pytest.fixture(scope="module")
def documents() -> dict[str, Compared]:
    return run_te_ranks(1, _compare_documents)[0]


@pytest.fixture(scope="module")
def unfused() -> dict[str, Compared]:
    return run_te_ranks(1, _compare_unfused)[0]


def _compare_documents() -> dict[str, Compared]:
    return compare(DOCUMENTS, "fp32", documents=True)


def _compare_unfused() -> dict[str, Compared]:
    return compare(UNFUSED, "bf16", fused=False)


def test_what_is_refused_names_the_remedy() -> None:
    for name, config in CONFIGS.items():
        assert (build_fault(config, TE) is not None) == (name in REFUSED)


def _name_what_is_not_answered() -> str:
    import transformer_engine_torch

    with pytest.raises(AttributeError) as error:
        transformer_engine_torch.newton_schulz(1)
    return str(error.value)


@pytest.mark.skipif(has_extension(), reason="the extension itself answers")
def test_what_the_reference_does_not_answer_is_named() -> None:
    message = run_te_ranks(1, _name_what_is_not_answered)[0]
    assert message.startswith("transformer_engine_torch.newton_schulz was called")


def test_initial_weights_are_those_of_the_other_kernels_to_the_bit() -> None:
    """By the names that both have in checkpoints."""
    found = run_te_ranks(1, initial_differences, NAMES)[0]
    assert found == {name: [] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_options_in_fp32(name: str, fp32: dict[str, Compared]) -> None:
    assert_same(fp32[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_masks(name: str, documents: dict[str, Compared]) -> None:
    assert_same(documents[name])


@pytest.mark.parametrize("name", NAMES)
def test_options_in_bf16(name: str, bf16: dict[str, Compared]) -> None:
    assert_close(bf16[name])


@pytest.mark.parametrize("name", UNFUSED)
def test_unfused_attention_in_bf16(name: str, unfused: dict[str, Compared]) -> None:
    assert_close(unfused[name])


def assert_close(found: Compared) -> None:
    assert max(map(abs, found.losses)) < 0.1
    assert max(found.gradients.values()) < 0.1


def assert_same(found: Compared) -> None:
    # Transformer Engine multiplies FP32 on a GPU in TF32.
    tolerance = 1e-2 if has_extension() else 1e-5
    assert found.logits < tolerance
    different = {key: value for key, value in found.gradients.items() if value > tolerance}
    assert not different
