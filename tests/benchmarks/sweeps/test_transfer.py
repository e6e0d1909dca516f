"""Published rules of learning rate and batch, by hand."""

from typing import Any

import pytest

from benchmarks.sweeps.transfer import Transfer

RUN: dict[str, float] = {
    "non_embedding_parameters": 1e9, "tokens": 1e11, "flops": 1e21, "hidden_size": 2048
}  # fmt: skip


def test_step_law() -> None:
    rule = Transfer(learning_rate="step-law", batch="step-law")
    # 1.79 * (1e9)^-0.713 * (1e11)^0.307 = 1.79 * 10^(-6.417 + 3.377)
    assert rule.learning_rate_of(**RUN) == pytest.approx(1.79 * 10**-3.04)
    assert rule.batch_tokens_of(tokens=1e11, flops=0) == pytest.approx(0.58 * 10**6.281)


def test_ling_moves_from_its_anchor_by_compute() -> None:
    anchor = {"learning_rate": 1e-3, "batch_tokens": 1e6, "flops": 1e20}
    rule = Transfer.model_validate({"learning_rate": "ling", "batch": "ling", "anchor": anchor})
    assert rule.learning_rate_of(**RUN | {"flops": 1e20}) == pytest.approx(1e-3)
    assert rule.learning_rate_of(**RUN) == pytest.approx(1e-3 * 10**-0.1529)
    assert rule.batch_tokens_of(tokens=0, flops=1e22) == pytest.approx(1e6 * 10**0.7288)


@pytest.mark.parametrize(("width", "rate"), [(256, 8e-3), (512, 4e-3), (2048, 1e-3)])
def test_width_keeps_rate_times_width(width: float, rate: float) -> None:
    anchor = {"learning_rate": 8e-3, "hidden_size": 256}
    rule = Transfer.model_validate({"learning_rate": "width", "anchor": anchor})
    assert rule.learning_rate_of(**RUN | {"hidden_size": width}) == pytest.approx(rate)


def test_without_a_rule_nothing_is_said() -> None:
    assert Transfer().learning_rate_of(**RUN) is None
    assert Transfer().batch_tokens_of(tokens=1, flops=1) is None


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"learning_rate": "width"}, "anchor.learning_rate"),
        ({"learning_rate": "width", "anchor": {"learning_rate": 1e-3}}, "anchor.hidden_size"),
        ({"learning_rate": "ling", "anchor": {"learning_rate": 1e-3}}, "anchor.flops"),
        ({"batch": "ling", "anchor": {"flops": 1e20}}, "anchor.batch_tokens"),
    ],
)
def test_anchors_are_asked_for(values: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        Transfer.model_validate(values)
