"""Files of points, and conventions: what is read, converted, refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.laws.conventions import hidden_granularity
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.points import Points, read_points
from benchmarks.laws.registry import LAWS

HEADING = "loss,parameters,tokens"


def points_of(tmp_path: Path, text: str) -> Points:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    return read_points(path)


def columns_of(**columns: list[float]) -> Points:
    arrays = {name: np.array(column, dtype=float) for name, column in columns.items()}
    return Points("made", arrays, {}, tuple(range(2, 2 + len(next(iter(arrays.values()))))))


def stated(points: Points, **conventions: str) -> Points:
    return Points(points.source, points.columns, conventions, points.rows)


def test_csv_and_parquet_are_alike(tmp_path: Path) -> None:
    text = f"{HEADING},note\n3.5,1e8,2e9,a\n\n3.25,2e8,4e9,b\n"
    from_csv = points_of(tmp_path, text)
    table = pa.table({"loss": [3.5, 3.25], "parameters": [1e8, 2e8], "tokens": [2e9, 4e9],
                      "note": ["a", "b"]})  # fmt: skip
    pq.write_table(table, tmp_path / "points.parquet")
    from_parquet = read_points(tmp_path / "points.parquet")
    assert from_csv.rows == (2, 4)
    assert set(from_csv.columns) == {"loss", "parameters", "tokens"}
    for name, column in from_csv.columns.items():
        assert column.tolist() == from_parquet.columns[name].tolist()


def test_bits_become_nats(tmp_path: Path) -> None:
    points = points_of(tmp_path, f"{HEADING},loss_unit\n4,1e8,2e9,bits\n")
    assert points.columns["loss"][0] == pytest.approx(4 * np.log(2))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{HEADING}\n3.5,1e8,2e9\n-1,1e8,2e9\n", r"row 3, column 'loss': '-1'"),
        (f"{HEADING}\n3.5,1e8,2e9\n0,1e8,2e9\n", r"row 3, column 'loss': '0'.*greater than 0"),
        (f"{HEADING}\nnan,1e8,2e9\n", r"row 2, column 'loss': 'nan'.*finite"),
        (f"{HEADING}\n3.5,inf,2e9\n", r"row 2, column 'parameters': 'inf'.*finite"),
        (f"{HEADING}\n3.5,1e99,2e9\n", r"row 2, column 'parameters': '1e99'.*not so large"),
        (f"{HEADING}\n3.5,1e-99,2e9\n", r"row 2, column 'parameters': '1e-99'.*not so small"),
        (f"{HEADING}\n3.5,1e999,2e9\n", r"row 2, column 'parameters': '1e999'.*finite"),
        (f"{HEADING}\n3.5,abc,2e9\n", r"row 2, column 'parameters': 'abc'"),
        (f"{HEADING}\n3.5,1e8\n", r"line 2: 2 cells under 3 columns"),
        (f"{HEADING}\n", "no points"),
        ("", "no points"),
        ("loss,loss\n1,2\n", "two columns 'loss'"),
        (f"{HEADING},sparsity\n3.5,1e8,2e9,1\n", r"row 2, column 'sparsity'"),
        (f"{HEADING},embeddings\n3,1e8,2e9,in\n3,1e8,2e9,out\n", r"row 3.*two conventions in one"),
        (f"{HEADING},embeddings\n3,1e8,2e9,maybe\n", r"row 2, column 'embeddings'.*in, out"),
    ],
)
def test_bad_files_name_row_and_column(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BenchmarkError, match=reason):
        points_of(tmp_path, text)


def test_nan_in_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"loss": [3.0, float("nan")]}), tmp_path / "p.parquet")
    with pytest.raises(BenchmarkError, match="row 2, column 'loss'"):
        read_points(tmp_path / "p.parquet")


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(BenchmarkError, match="not a Parquet file"):
        read_points(tmp_path / "p.parquet")
    with pytest.raises(BenchmarkError, match="no such file"):
        read_points(tmp_path / "absent.csv")


def test_a_missing_column_is_named_with_what_there_is() -> None:
    points = columns_of(loss=[3.0], tokens=[1e9])
    with pytest.raises(
        BenchmarkError, match="no column 'parameters', which law 'chinchilla' needs"
    ):
        law_points(LAWS["chinchilla"], points)
    points = columns_of(loss=[3.0], parameters=[1e9], experts=[8])
    with pytest.raises(BenchmarkError, match="no column 'sparsity' or experts and top_k"):
        law_points(LAWS["abnar"], columns_of(loss=[3.0], parameters=[1e9], tokens=[1e9]))
    with pytest.raises(BenchmarkError, match="not 'parameters'"):
        law_points(LAWS["clark"], points)


def test_an_empty_cell_of_a_needed_column_is_named(tmp_path: Path) -> None:
    points = points_of(tmp_path, f"{HEADING},top_k\n3.5,1e8,2e9,\n3.5,1e8,,2\n")
    with pytest.raises(BenchmarkError, match="row 3, column 'tokens': empty"):
        law_points(LAWS["chinchilla"], points)


def test_quantities_follow_from_others() -> None:
    points = columns_of(
        loss=[3.0], parameters=[1e9], active_parameters=[2e8], tokens=[1e10],
        experts=[64], top_k=[6], shared_experts=[2], hidden_size=[1024],
        expert_ffn_hidden_size=[256], ffn_hidden_size=[4096], leverage=[2.0],
        non_embedding_parameters=[0.9e9],
    )  # fmt: skip
    assert law_points(LAWS["abnar"], points).columns["sparsity"][0] == 58 / 64
    ling = law_points(LAWS["ling"], points).columns
    assert ling["activation_ratio"][0] == 8 / 66
    assert ling["hidden_granularity"][0] == 8
    assert ling["flops"][0] == 6 * 2e8 * 1e10
    tencent = law_points(LAWS["tencent"], points).columns
    assert (tencent["active_experts"][0], tencent["shared_ratio"][0]) == (8, 0.25)
    krajewski = law_points(LAWS["krajewski"], points).columns
    assert (krajewski["parameters"][0], krajewski["granularity"][0]) == (0.9e9, 16)
    assert hidden_granularity(16, 4) == 8


def test_embeddings_are_converted_or_refused() -> None:
    points = columns_of(loss=[3.0], parameters=[1e9], tokens=[1e10], granularity=[4])
    law = LAWS["krajewski"]
    (warning,) = law_points(law, points).warnings
    assert "without embeddings" in warning
    with pytest.raises(BenchmarkError, match="embeddings in, law 'krajewski' has them out"):
        law_points(law, stated(points, embeddings="in"))
    assert law_points(law, stated(points, embeddings="out")).warnings == ()
    known = columns_of(
        loss=[3.0], parameters=[1e9], tokens=[1e10], granularity=[4], embedding_parameters=[1e8]
    )
    assert law_points(law, known).columns["parameters"][0] == 0.9e9
    with_out = law_points(LAWS["chinchilla"], stated(known, embeddings="out"))
    assert with_out.columns["parameters"][0] == 1.1e9


def test_the_label_s_size_is_no_total() -> None:
    points = columns_of(
        loss=[3.0], parameters=[1e8], active_parameters=[1e8], tokens=[1e10], granularity=[4],
        experts=[64], top_k=[1],
    )  # fmt: skip
    with pytest.raises(BenchmarkError, match="equal to active_parameters though not all experts"):
        law_points(LAWS["krajewski"], points)
    wrong = columns_of(loss=[3.0], parameters=[1e8], active_parameters=[2e8], tokens=[1e10])
    with pytest.raises(BenchmarkError, match="row 2, column 'active_parameters': more than"):
        law_points(LAWS["chinchilla"], wrong)


def test_another_granularity_is_refused() -> None:
    points = columns_of(
        loss=[3.0], non_embedding_parameters=[1e9], parameters=[1.1e9], tokens=[1e10],
        granularity=[4],
    )  # fmt: skip
    with pytest.raises(BenchmarkError, match="granularity_definition is hidden"):
        law_points(LAWS["krajewski"], stated(points, granularity_definition="hidden"))


def test_sparse_points_under_a_dense_law_are_warned_of() -> None:
    points = columns_of(loss=[3.0], parameters=[1e9], tokens=[1e10], experts=[8])
    (warning,) = law_points(LAWS["chinchilla"], points).warnings
    assert "no term for experts" in warning


def test_runs_that_did_not_finish_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("loss,tokens,status\n3,10,finished\n,10,failed\n2.5,20,finished\n")
    points = read_points(file)
    assert points.columns["loss"].tolist() == [3, 2.5]
    assert points.rows == (2, 4)
    assert points.left_out == 1
    file.write_text("loss,status\n3,failed\n")
    with pytest.raises(BenchmarkError, match="column 'status': none of 1 runs is finished"):
        read_points(file)
