"""A calibrated score of 0.8 is right 80 % of the time, and the order of scores stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.models.calibrate import calibrated, fit, raw_score


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, -0.7), (2.0, 1.0)])
def test_a_fit_finds_what_scores_mean(slope: float, offset: float) -> None:
    random = np.random.default_rng(0)
    odds = random.normal(1, 2, 20_000)
    truth = 1 / (1 + np.exp(-(slope * odds + offset)))
    right = random.random(len(odds)) < truth
    raw = (1 / (1 + np.exp(-odds))).astype(np.float32)
    found = fit(raw, right)
    assert found == pytest.approx((slope, offset), abs=0.1)
    score = calibrated(raw, found)
    for low in np.arange(0.1, 0.9, 0.1):
        inside = (score >= low) & (score < low + 0.1)
        assert right[inside].mean() == pytest.approx(score[inside].mean(), abs=0.05)


@given(
    st.floats(0.0, 1.0),
    st.floats(0.05, 5),
    st.floats(-3, 3),
    st.lists(st.floats(0, 1), max_size=20),
)
def test_the_order_stays_and_the_threshold_leaves_out_none(
    score: float, slope: float, offset: float, scores: list[float]
) -> None:
    raw = np.sort(np.array(scores, np.float32))
    meant = calibrated(raw, (slope, offset))
    assert (np.diff(meant) >= 0).all()
    assert ((meant >= 0) & (meant <= 1)).all()
    least = raw_score(score, (slope, offset))
    assert not (meant[raw < least] >= score + 1e-3).any()


def test_few_or_perfect_objects_give_a_finite_fit_near_the_identity() -> None:
    assert fit(np.zeros(0, np.float32), np.zeros(0, bool)) == pytest.approx((1, 0), abs=0.01)
    slope, offset = fit(np.full(30, 0.9, np.float32), np.ones(30, bool))
    assert np.isfinite([slope, offset]).all()
    assert calibrated(np.array([0.9], np.float32), (slope, offset))[0] > 0.9
