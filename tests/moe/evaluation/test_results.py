"""Losses that are no numbers are null in JSON, and said in the table."""

import json
import math

import pytest

from moe.evaluation.results import Loss
from moe.evaluation.tables import print_evaluation


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e4])
def test_a_loss_that_has_no_perplexity(loss: float, capsys: pytest.CaptureFixture[str]) -> None:
    measured = Loss(source=None, sequences=1, tokens=8, loss=loss, standard_error=math.nan)
    values = json.loads(json.dumps(measured.as_json(), allow_nan=False))
    assert values["perplexity"] is None and values["standard_error"] is None
    assert values["loss"] == (loss if math.isfinite(loss) else None)
    document = {"run_dir": "r", "step": 1, "split": "held_out", "fp8": None, "routing": None}
    print_evaluation({**document, "sources": [], **values})
    assert "not a number" in capsys.readouterr().out
