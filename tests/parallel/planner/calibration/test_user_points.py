"""Calibration on a user's own `moe bench` records."""

import json
from pathlib import Path
from typing import Any

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import load_card
from parallel.planner.calibration.user_points import calibrate_card
from parallel.planner.compute_time.attention import AttentionShape, attention_seconds
from parallel.planner.compute_time.gemm import gemm_seconds

H100 = load_card("h100")
SLOWER = 1.15


def gemm_record(m: int, factor: float, **case: Any) -> dict[str, Any]:
    seconds = factor * gemm_seconds(H100, m, 4096, 4096, "bf16")
    row = {"implementation": "mm", "burst_s": {"median": seconds / 1.1}, "sustained_s": seconds}
    slow = {"implementation": "other", "burst_s": {"median": 1.0}, "sustained_s": 2.0}
    sizes = {"m": m, "n": 4096, "k": 4096, "groups": 1, "dtype": "bf16"}
    return {
        "bench": "gemm",
        "case": sizes | case,
        "result": {"implementations": [slow, row]},
    }


def attention_record(seq_len: int) -> dict[str, Any]:
    shape = AttentionShape(batch=1, seq=seq_len, heads=32, kv_heads=8, qk_dim=128, v_dim=128)
    times = {
        f"{kind}_s": {
            "median": factor * attention_seconds(H100, shape, backward=backward, repetitions=1)
        }
        for kind, backward, factor in (("forward", False, 0.9), ("backward", True, 1.4))
    }
    case = {"batch_size": 1, "seq_len": seq_len, "num_heads": 32, "num_kv_heads": 8,
            "qk_head_dim": 128, "v_head_dim": 128, "dtype": "bf16"}  # fmt: skip
    backends = [{"backend": "math", **times}, {"backend": "torch's choice", **times}]
    return {"bench": "attention", "case": case, "result": {"backends": backends}}


def write(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "bench.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_a_slower_machine_is_found(tmp_path: Path) -> None:
    gemms = [gemm_record(m, SLOWER * noise) for m, noise in ((512, 0.97), (4096, 1.0), (8192, 1.2))]
    path = write(tmp_path, *gemms, attention_record(4096), {**gemms[0], "bench": "collectives"})
    calibration = calibrate_card(H100, path)
    assert calibration.unused == 1
    assert calibration.kinds["gemm.bf16"].points == 3
    assert calibration.kinds["gemm.bf16"].factor == pytest.approx(SLOWER)
    assert calibration.kinds["gemm.bf16"].error_after < calibration.kinds["gemm.bf16"].error_before
    assert calibration.kinds["attention.forward"].factor == pytest.approx(0.9)
    assert calibration.kinds["attention.backward"].factor == pytest.approx(1.4)
    before = gemm_seconds(H100, 1000, 2000, 3000, "bf16")
    after = gemm_seconds(calibration.card, 1000, 2000, 3000, "bf16")
    assert after == pytest.approx(SLOWER * before)
    assert gemm_seconds(calibration.card, 1000, 2000, 3000, "fp8") == gemm_seconds(
        H100, 1000, 2000, 3000, "fp8"
    )
    again = calibrate_card(calibration.card, path)
    assert again.kinds["gemm.bf16"].factor == pytest.approx(1.0)
    assert again.card.kernels.machine_factors == pytest.approx(
        calibration.card.kernels.machine_factors
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read as JSON lines"),
        ('{"bench": "gemm"}', "line 1: not a record of moe bench"),
        ("3", "line 1: not a record of moe bench"),
        ("", "no record calibrates a kernel"),
    ],
)
def test_wrong_files_are_told_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParallelError, match=complaint) as caught:
        calibrate_card(H100, path)
    assert "\n" not in str(caught.value)


def test_a_product_below_the_models_precisions_calibrates_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParallelError, match="no record calibrates"):
        calibrate_card(H100, write(tmp_path, gemm_record(512, 1.0, groups=8)))


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_times_are_told(tmp_path: Path, time: float) -> None:
    wrong = attention_record(4096)
    wrong["result"]["backends"][1]["forward_s"]["median"] = time
    with pytest.raises(ParallelError, match=r"line 2: attention.forward took .* positive numbers"):
        calibrate_card(H100, write(tmp_path, gemm_record(512, 1.0), wrong))
