"""Video files: whole ones with all frames, and one line for what cannot be written."""

import sys
from pathlib import Path

import numpy as np
import pytest
from small_player import frames_of

from ctm_rl.agents.video.files import SUFFIXES, check_file, has_mp4, writing
from ctm_rl.errors import UserError

FRAMES = [np.full((61, 83, 3), 6 * number, np.uint8) for number in range(30)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_video_has_every_frame_at_its_time(suffix: str, tmp_path: Path) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av")
    file = tmp_path / "new" / f"video{suffix}"
    with writing(file, 25.0) as add:
        for frame in FRAMES:
            add(frame)
        assert not file.exists()
    frames, seconds = frames_of(file)
    even = 1 if suffix == ".mp4" else 0  # its sizes are even
    assert [frame.shape for frame in frames] == [(61 + even, 83 + even, 3)] * len(FRAMES)
    assert seconds == pytest.approx(len(FRAMES) / 25)
    for number, frame in enumerate(frames):
        assert abs(frame.astype(int) - 6 * number).max() <= 4
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_frames_of_other_sizes_are_brought_to_that_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "a.webp"
    with writing(file, 10.0) as add:
        for size in ((40, 60), (80, 60), (10, 10)):
            add(np.full((*size, 3), 200, np.uint8))
    frames, _ = frames_of(file)
    assert [frame.shape for frame in frames] == [(40, 60, 3)] * 3
    assert [int(frame[20, 30].min()) > 190 for frame in frames] == [True] * 3
    assert frames[1][20, 5].max() < 10  # narrower: black beside it


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_remains_of_a_video_that_is_broken_off(suffix: str, tmp_path: Path) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av")
    file = tmp_path / f"video{suffix}"
    file.write_text("the one before")
    with pytest.raises(KeyboardInterrupt), writing(file, 25.0) as add:
        add(FRAMES[0])
        raise KeyboardInterrupt
    assert [item.name for item in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "the one before"


def test_what_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/a\.gif cannot be written: (Not a directory|File exists), really\.$"):
        with writing(tmp_path / "file" / "a.gif", 25.0, ", really"):
            pass
    with pytest.raises(UserError, match=r"--out must end with \.mp4, \.gif or \.webp, got '.*a\.avi'"):
        check_file(tmp_path / "a.avi")
    (tmp_path / "there.GIF").touch()
    with pytest.raises(UserError, match=r"--out .*there\.GIF exists; --overwrite replaces it, or name another one"):
        check_file(tmp_path / "there.GIF")
    check_file(tmp_path / "there.GIF", overwrite=True)
    monkeypatch.setitem(sys.modules, "av", None)
    assert not has_mp4()
    with pytest.raises(UserError, match=r'a\.mp4 needs PyAV, which is not installed: pip install "ctm-rl\[video\]"'):
        check_file(tmp_path / "a.mp4")
