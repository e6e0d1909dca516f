"""`moe fit` and `moe predict` as a user runs them."""

import json
import os
from pathlib import Path

import pytest

from tests.support.law_points import made_points, write_csv
from tests.support.trained_runs import command


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    return write_csv(made_points("chinchilla", 0.002), folder / "points.csv")


def test_fit_then_predict(points: Path, tmp_path: Path) -> None:
    law = tmp_path / "law.json"
    code, out, err = command("fit", points, "--law", "chinchilla", "--json", "-o", law)
    assert code == 0, err
    found = json.loads(out)
    assert {"law", "loss", "objective", "coefficients", "intervals", "unidentified"} <= set(found)
    assert (found["law"], found["loss"]) == ("chinchilla", "huber")
    assert json.loads(law.read_text()) == found
    low, high = found["intervals"]["E"]
    assert low < found["coefficients"]["E"] < high
    code, out, err = command("predict", law, "--flops", "1e21", "--json")
    assert code == 0, err
    best = json.loads(out)
    assert {"best", "loss", "interval", "law", "cost"} <= set(best)
    assert best["interval"][0] < best["loss"] < best["interval"][1]
    assert "beyond the fitted points" in err


def test_a_pipe_stays_a_pipe(points: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, out, err = command("fit", points, "--resamples", "20", "-o", pipe)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"moe: --out {pipe}: not a regular file"
    assert pipe.is_fifo()


def test_fits_are_shown_as_tables(points: Path) -> None:
    code, out, err = command("fit", points, "--loss", "lad", "--resamples", "20")
    assert code == 0, err
    assert "95% bootstrap" in out
    assert "Predicted from all other points" in out
    code, out, err = command("predict", "ludziejewski", "--flops", "1e22")
    assert code == 0, err
    assert "active parameters" in out


def test_laws_are_compared(points: Path) -> None:
    own = "exp(a + b * log(parameters) + c * log(tokens))"
    arguments = ("fit", points, "--law", own, "--law", "chinchilla", "--resamples", "20")
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [row["law"] for row in found["comparison"]] == ["chinchilla", own]
    assert [fit["law"] for fit in found["fits"]] == [own, "chinchilla"]
    code, out, err = command(*arguments)
    assert code == 0, err
    assert out.index("chinchilla") < out.index("exp(a")


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (("loss", "los"), (), "no column 'loss'"),
        (("", ""), ("--law", "clark"), "no column 'active_parameters'"),
        (("", ""), ("--law", "hofmann"), "no law has that name; there are chinchilla"),
        (("", ""), ("--law", "A + import"), "is no expression"),
        (("", ""), ("--loss", "mse"), "none of huber, lad, squared"),
        (("\n", "\nnan,1e8,1e9\n"), (), "row 2, column"),
        (("\n", "\n1e8,1e9,-2\n"), (), "row 2, column 'loss'"),
    ],
)
def test_mistakes_are_one_line(
    points: Path, tmp_path: Path, change: tuple[str, str], options: tuple[str, ...], reason: str
) -> None:
    spoiled = tmp_path / "spoiled.csv"
    spoiled.write_text(points.read_text().replace(*change, 1))
    code, out, err = command("fit", spoiled, *options, "--json")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert reason in err


def test_a_page_is_written_beside_the_answer(points: Path, tmp_path: Path) -> None:
    page = tmp_path / "law.html"
    arguments = ("fit", points, "--resamples", "20", "--json", "--html")
    code, out, err = command(*arguments, page)
    assert code == 0, err
    assert json.loads(out)["residuals"]["structure"] == []
    assert "Iso-FLOP parabolas" in page.read_text()
    code, out, err = command(*arguments, tmp_path / "no" / "law.html")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "--html" in err


def test_residuals_are_read_in_words(points: Path) -> None:
    code, out, err = command("fit", points, "--resamples", "20")
    assert code == 0, err
    assert "Residuals show no structure along parameters, tokens." in out


def test_predict_of_nothing_is_one_line(tmp_path: Path) -> None:
    code, out, err = command("predict", tmp_path / "no.json", "--flops", "1e21")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
