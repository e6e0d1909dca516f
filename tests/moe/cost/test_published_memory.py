"""Peaks that others measured and published, against the memory model."""

from statistics import median

import pytest

from tests.support.published_memory import PublishedPeak, published_peaks

PEAKS = published_peaks()
PREDICTED = [peak for peak in PEAKS if peak.reason is None]


@pytest.mark.parametrize("peak", PREDICTED, ids=lambda peak: peak.name)
def test_a_published_peak_is_near(peak: PublishedPeak) -> None:
    if peak.natural_routing:
        assert -0.2 < peak.error < 0
    else:
        assert abs(peak.error) < 0.1


def test_the_median_error_is_small() -> None:
    assert len(PREDICTED) == 14
    assert median(abs(peak.error) for peak in PREDICTED) < 0.01


def test_every_other_row_says_why_it_is_not_predicted() -> None:
    assert len(PEAKS) - len(PREDICTED) == 12
    assert all(peak.reason for peak in PEAKS if peak.predicted_gib is None)
