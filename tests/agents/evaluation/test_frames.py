"""Frames: enlarged without smoothing, shrunk, and put into a size."""

import numpy as np

from ctm_rl.agents.evaluation.frames import enlarge, fit, pad, shrink

CHECKED = np.kron([[0, 255], [255, 0]], np.ones((4, 6))).astype(np.uint8)[..., None].repeat(3, axis=2)


def test_small_frames_are_enlarged_by_whole_factors() -> None:
    large = enlarge(CHECKED)
    assert large.shape == (256, 384, 3)
    assert (large[::32, ::32] == CHECKED).all()
    assert enlarge(large) is large


def test_a_frame_fits_into_a_rectangle_with_its_proportions() -> None:
    assert fit(CHECKED, 100, 100).size == (96, 64)
    assert set(np.unique(np.asarray(fit(CHECKED, 100, 100)))) == {0, 255}
    assert fit(enlarge(CHECKED), 100, 1000).size == (100, 67)
    assert shrink(enlarge(CHECKED), 192).shape == (128, 192, 3)
    assert shrink(CHECKED, 192) is CHECKED


def test_padding_is_black() -> None:
    padded = pad(CHECKED | 1, 20, 10)
    assert padded.shape == (10, 20, 3)
    assert (padded[1:9, 4:16] == CHECKED | 1).all()
    assert (padded[0] == 0).all()
    assert pad(CHECKED, 6, 6).shape == (6, 6, 3)
