"""Published rows: what is read of them, what is assumed, and how errors are told."""

from math import log
from pathlib import Path

import pytest

from parallel.errors import ParallelError
from parallel.layout.model_shape import ModelShape
from parallel.planner.flops import attention_flops_per_token, training_flops_per_token
from parallel.planner.step.parameters import step_parameters
from parallel.planner.validation.jobs import Job, UnusableRowError, jobs_of
from parallel.planner.validation.published import published_tflops
from parallel.planner.validation.rows import NEEDED, NUMBERS, PublishedRow, read_rows
from parallel.planner.validation.score import all_scored, summaries, summarize
from parallel.planner.validation.uncertainty import likely_seconds, unknown_flags
from tests.support.model_shapes import SPARSE

CELLS = {
    "model": "m", "gpu": "H100", "gpus": "8", "tp": "2", "pp": "2", "vpp": "1", "cp": "1",
    "ep": "2", "etp": "1", "dp": "2", "seq_len": "32", "gbs": "16", "mbs": "1",
    "precision": "bf16", "dispatcher": "alltoall", "ep_overlap": "off", "recompute": "none",
    "tokens_per_s_per_gpu": "100", "routing": "forced", "cuda_graphs": "none",
    "sharding": "distributed-optimizer", "task": "pretrain", "tp_overlap": "off",
}  # fmt: skip

TEXTS = ("flop_convention", "memory_kind", "doubtful", "layout_id", "flags_known", "kind", "fabric",
         "framework")  # fmt: skip


def row(**changes: str) -> PublishedRow:
    empty = dict.fromkeys((*NEEDED, *NUMBERS, *TEXTS), "")
    return PublishedRow(2, empty | CELLS | changes)


def write(folder: Path, *rows: PublishedRow) -> Path:
    names = list(rows[0].cells)
    lines = [",".join(names), *(",".join(r.cells[name] for name in names) for r in rows)]
    file = folder / "rows.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def shape(_: PublishedRow) -> ModelShape:
    return SPARSE


class Known:
    """Predicts by hand: overlapped experts take twice as long; micro-batches of 4 do not fit."""

    def __init__(self, measured_cards: tuple[str, ...] = ("H100",)) -> None:
        cards = {"measured_cards": measured_cards}
        self.parameters = step_parameters().model_copy(update=cards)

    def memory_bytes(self, job: Job) -> int:
        return 9 * job.work.batch.micro_batch_size

    def fits(self, job: Job) -> bool:
        return self.memory_bytes(job) < 36 or job.work.layout.recompute == "full"

    def step_seconds(self, job: Job) -> float:
        assert job.gpu == "H100"
        return 1.0 + job.work.layout.overlap_experts


predict = Known()


def jobs(published: PublishedRow) -> list[Job]:
    return jobs_of(published, SPARSE, predict.fits)


def test_a_row_that_says_all_is_one_job() -> None:
    stated = row(fabric="EFA", framework="Megatron-LM")
    [job] = jobs(stated)
    assert (job.gpu, job.fabric, job.row) == ("H100", "efa", stated)
    assert jobs(row(fabric="RDMA 400 Gb/s a GPU"))[0].fabric is None
    assert job.assumed == ()
    layout = job.work.layout
    assert (layout.tp, layout.pp, layout.ep, layout.recompute) == (2, 2, 2, "none")
    assert job.work.placement.dp == 2


def test_what_a_row_does_not_say_is_tried_and_told(tmp_path: Path) -> None:
    [result] = all_scored(read_rows(write(tmp_path, row(ep_overlap="", vpp="2"))), shape, predict)
    assert result.assumed == ("ep_overlap=off", "ep_overlap=on")
    likely = likely_seconds([1.0, 2.0], step_parameters().spread.sparse_unknown)
    low, high = result.interval or (0, 0)
    [known] = all_scored([row(vpp="2", ep_overlap="off")], shape, predict)
    assert result.predicted == pytest.approx((known.predicted or 0) / likely.seconds)
    assert high / low == pytest.approx(likely.high / likely.low)
    known_low, known_high = known.interval or (0, 0)
    assert high / low > known_high / known_low, "what is not known widens the interval"


def test_readings_that_do_not_fit_are_left_out() -> None:
    sizes = {job.work.batch.micro_batch_size for job in jobs(row(mbs=""))}
    assert sizes == {1, 2}
    [whole] = jobs(row(mbs="4", recompute=""))
    assert whole.work.layout.recompute == "full"
    assert "recompute=full" in whole.assumed
    [stated] = jobs(row(mbs="4"))
    assert stated.work.layout.recompute == "none", "a stated layout is taken, fits or not"


def test_readings_are_weighed_by_their_speed() -> None:
    likely = likely_seconds([1.0, 2.0], 0.1)
    weights = 1.0, 2.0**-4
    mean = log(2) * weights[1] / sum(weights)
    variance = (weights[0] * mean**2 + weights[1] * (log(2) - mean) ** 2) / sum(weights)
    half = 1.2816 * (0.1**2 + variance) ** 0.5
    assert log(likely.seconds) == pytest.approx(mean)
    assert log(likely.high / likely.seconds) == pytest.approx(half)
    assert log(likely.seconds / likely.low) == pytest.approx(half)


def test_a_card_without_measured_steps_widens_the_interval() -> None:
    [measured] = all_scored([row()], shape, predict)
    [unmeasured] = all_scored([row()], shape, Known(measured_cards=("B200",)))
    assert measured.predicted == unmeasured.predicted
    inner, outer = measured.interval or (0, 0), unmeasured.interval or (0, 0)
    assert outer[0] < inner[0] < inner[1] < outer[1]


def test_a_row_s_program_settles_what_it_leaves_out() -> None:
    open_row = {"dispatcher": "", "ep_overlap": "", "vpp": "2"}
    assert len(jobs(row(**open_row))) > 1
    [only] = jobs(row(**open_row, framework="megatron-core 0.8"))
    assert (only.work.layout.exchange_library, only.work.layout.overlap_experts) == (
        "alltoall", False,
    )  # fmt: skip
    assert {"dispatcher=alltoall", "ep_overlap=off"} <= set(only.assumed)
    [stated] = jobs(row(vpp="2", ep_overlap="on", framework="megatron-core 0.8"))
    assert stated.work.layout.overlap_experts, "what a row says is taken"


def test_what_decides_the_speed_and_is_not_stated_is_named() -> None:
    [job] = jobs(row())
    assert unknown_flags(row(), job) == ()
    assert unknown_flags(row(dispatcher="", mbs=""), job) == ("mbs", "dispatcher")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tp": ""}, "tp is not stated"),
        ({"precision": "int3"}, "precision 'int3' is not modelled"),
        ({"dispatcher": "post"}, "dispatcher 'post' is not modelled"),
        ({"gpus": "7"}, "does not divide 7 ranks"),
        ({"sharding": "fsdp"}, "sharding 'fsdp' is not modelled"),
        ({"task": "lora"}, "task 'lora' is not modelled"),
        ({"doubtful": "a smoke run"}, "doubtful: a smoke run"),
        ({"fabric": "EFA"}, "on EFA"),
        ({"gpu": "abacus"}, "gpu 'abacus': no such card"),
        ({"seq_len": ""}, "seq_len is not stated"),
        ({"tokens_per_s_per_gpu": ""}, "states no speed"),
        ({"mtp_layers": "1"}, "mtp_layers=1"),
        ({"recompute": "xx"}, "recompute 'xx' is not modelled"),
        ({"recompute": "layernorm,none"}, "recompute 'none' is not modelled"),
    ],
)
def test_unusable_rows_say_why(changes: dict[str, str], reason: str) -> None:
    [result] = all_scored([row(**changes)], shape, predict)
    assert not result.is_used
    assert reason in (result.reason or "")
    assert result.as_json()["used"] is False


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"gpus": "many"}, "line 2, gpus = 'many': not a number"),
        ({"mbs": "1.5"}, "line 2, mbs = '1.5': not a whole number"),
        ({"tokens_per_s_per_gpu": "inf"}, "line 2, tokens_per_s_per_gpu = 'inf': not a number"),
        ({"tokens_per_s_per_gpu": "1e-320"}, "not a number from 1e-09 to 1e\\+09"),
        ({"tflops_per_gpu": "1e300", "tokens_per_s_per_gpu": ""}, "not a number from 1e-09"),
        ({"gpus": "８"}, "line 2, gpus = '８': not a number"),
        ({"gpus": "1_6"}, "line 2, gpus = '1_6': not a number"),
        ({"gpus": "-8"}, "not a number from 1 to 1e\\+09"),
        ({"tokens_per_s_per_gpu": "0"}, "= '0': not a number from 1e-09"),
        ({"mtp_layers": "-1"}, "not 0 or a number from 1 to"),
        ({"seq_len": "1e12"}, "line 2, seq_len = '1e12': not a number from"),
        ({"tokens_per_s_per_gpu": "", "tflops_per_gpu": "9", "flop_convention": "0 GFLOP/token"},
         "flop_convention '0 GFLOP/token'"),
        ({"tokens_per_s_per_gpu": "", "tflops_per_gpu": "9", "flop_convention": "ours"},
         "flop_convention 'ours'"),
    ],
)  # fmt: skip
def test_wrong_cells_are_errors(changes: dict[str, str], fault: str) -> None:
    with pytest.raises(ParallelError, match=fault):
        all_scored([row(**changes)], shape, predict)


def test_speeds_are_converted_to_one_convention() -> None:
    ours = training_flops_per_token(SPARSE, 32)
    whole = ours + attention_flops_per_token(SPARSE, 32)
    tokens = {"tokens_per_s_per_gpu": ""}
    assert published_tflops(row(), SPARSE, 32) == pytest.approx(100 * ours / 1e12)
    step = row(**tokens, step_s="0.5")
    assert published_tflops(step, SPARSE, 32) == pytest.approx(16 * 32 / 0.5 / 8 * ours / 1e12)
    printed = row(**tokens, tflops_per_gpu="300", flop_convention="full-attention")
    assert published_tflops(printed, SPARSE, 32) == pytest.approx(300 * ours / whole)
    share = row(**tokens, mfu_pct="50", peak_tflops_for_mfu="1000")
    assert published_tflops(share, SPARSE, 32) == pytest.approx(500)
    stated = row(**tokens, tflops_per_gpu="300", flop_convention="2 GFLOP/token")
    assert published_tflops(stated, SPARSE, 32) == pytest.approx(300 * ours / 2e9)


def test_files_that_are_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(ParallelError, match="No such file"):
        read_rows(tmp_path / "none.csv")
    file = tmp_path / "rows.csv"
    file.write_text("model,gpu\nm,H100\n")
    with pytest.raises(ParallelError, match="no column gpus, seq_len, gbs: add it"):
        read_rows(file)
    file.write_text("model,gpu,gpus,seq_len,gbs\n")
    with pytest.raises(ParallelError, match="no column of speeds: add one of tokens_per_s"):
        read_rows(file)
    file.write_text(write(tmp_path, row()).read_text() + "one,two\n")
    with pytest.raises(ParallelError, match="line 3: 2 cells under"):
        read_rows(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ParallelError, match="not CSV in UTF-8"):
        read_rows(file)


def test_a_column_that_is_not_there_is_unknown() -> None:
    full = row(vpp="", cp="", mbs="", recompute="", routing="", cuda_graphs="")
    short = PublishedRow(2, {name: cell for name, cell in full.cells.items() if cell})
    assert set(short.cells) < set(full.cells)
    results = all_scored([short, full], shape, predict)
    assert results[0].is_used
    assert results[0].predicted == results[1].predicted
    assert "mbs=2" in results[0].assumed


def test_numbers_are_told_as_numbers() -> None:
    whole = row(tokens_per_s_per_gpu="99.5", gbs="16.0", notes="7", mfu_pct="4e1")
    told = all_scored([whole], shape, predict)[0].as_json()
    assert told["tokens_per_s_per_gpu"] == 99.5
    assert (told["gbs"], told["mfu_pct"], told["step_s"]) == (16, 40.0, None)
    assert isinstance(told["gbs"], int)
    assert (told["notes"], told["model"], told["fabric"]) == ("7", "m", "")


def test_a_layout_counts_once_however_often_it_was_published() -> None:
    fast, slow = {"layout_id": "a"}, {"layout_id": "b", "kind": "moe"}
    speed = training_flops_per_token(SPARSE, 32) * 16 * 32 / 8 / 1e12
    per_token = 16 * 32 / 8
    results = all_scored(
        [row(**fast, tokens_per_s_per_gpu=str(per_token / factor)) for factor in (1, 5, 6)]
        + [row(**slow, tokens_per_s_per_gpu=str(per_token))],
        shape,
        predict,
    )
    assert [result.predicted for result in results] == [pytest.approx(speed)] * 4
    summary = summarize(results)
    assert summary is not None
    assert (summary.layouts, summary.rows) == (2, 4)
    assert summary.median == pytest.approx((4 + 0) / 2)
    assert summary.covered == 0.5
    assert set(summaries(results, "kind")) == {"moe", "not stated"}
    assert summarize([]) is None


def test_a_layout_without_any_reading_is_unusable() -> None:
    with pytest.raises(UnusableRowError, match="no legal layout: .*seq_len"):
        jobs(row(cp="8", gpus="64", seq_len="24"))
