"""Videos while training: files and loggers get them, training does not notice, and none that fails ends a run."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_player import frames_of
from tiny_runs import comparable, stop_in, train

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.loggers.protocol import VIDEO_TAG
from ctm_rl.agents.rllib.iteration import IterationStopped
from ctm_rl.agents.runs import videos
from ctm_rl.agents.runs.videos import Videos
from ctm_rl.cli.main import main
from ctm_rl.configs import load

EVERY = ("--video-every", "2")


def images_of(run: str) -> dict[int, bytes]:
    """The images that TensorBoard finds, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(f"{run}/tensorboard", size_guidance={"images": 0})
    accumulator.Reload()
    return {event.step: event.encoded_image_string for event in accumulator.Images(VIDEO_TAG)}


@pytest.mark.usefixtures("ray_session", "place")
def test_training_is_the_same_with_videos_and_a_resumed_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert train("cartpole", iterations=4, run_dir="without") == 0
    assert train("cartpole", *EVERY, iterations=4, run_dir="with") == 0
    assert comparable("without") == comparable("with")
    assert not Path("without/videos").exists()
    names = [f"iteration-{number:06d}.webp" for number in (2, 4)]
    assert sorted(item.name for item in Path("with/videos").iterdir()) == names
    for name in names:
        frames, seconds = frames_of(Path("with/videos") / name)
        assert {frame.shape for frame in frames} == {(213, 320, 3)}
        assert 0.1 < seconds < 6
    images = images_of("with")
    steps = [row["env_steps"] for row in comparable("with")]
    assert sorted(images) == [steps[1], steps[3]]
    Path("last.gif").write_bytes(images[int(steps[3] or 0)])
    small, _ = frames_of(Path("last.gif"))
    assert {frame.shape for frame in small} == {(106, 160, 3)}
    assert np.ptp(small[0]) > 100

    with monkeypatch.context() as patch:
        stop_in(3, patch)
        assert train("cartpole", *EVERY, "--checkpoint-iterations", "1", iterations=4, run_dir="stopped") == 130
    assert len(list(Path("stopped/videos").iterdir())) == 1
    assert main(["resume", "stopped"]) == 0
    assert sorted(item.name for item in Path("stopped/videos").iterdir()) == names
    assert len(images_of("stopped")) == 2


class Player:
    """Stands for what plays and writes."""

    def __init__(self, error: BaseException | None) -> None:
        self.error, self.calls = error, 0

    def write(self, _: Videos, iteration: int, policy: Any) -> str:
        self.calls += 1
        np.random.rand()
        if self.error is not None:
            raise self.error
        return f"{iteration} by {policy}"


def experiment() -> ActingExperiment:
    """One with a video in every third iteration."""
    import dataclasses

    cartpole = load("cartpole")
    assert isinstance(cartpole, ActingExperiment)
    return dataclasses.replace(cartpole, video_every=3)


def test_a_video_that_fails_is_one_line_and_leaves_the_generators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    player = Player(None)
    monkeypatch.setattr(videos.Videos, "_write", lambda *arguments: player.write(*arguments))
    every = Videos(experiment(), tmp_path)
    np.random.seed(4)
    expected = np.random.RandomState(4).rand()
    assert [every.update(number, lambda: "me") for number in range(1, 7)] == [  # pyright: ignore
        *(None, None, "3 by me", None, None, "6 by me"),
    ]
    player.error = RuntimeError("no\ndisplay.")
    assert [every.update(number, lambda: "me") for number in (9, 12)] == [None, None]  # pyright: ignore
    player.error = IterationStopped()
    assert every.update(15, lambda: "me") is None  # pyright: ignore
    assert player.calls == 5
    assert np.random.rand() == expected
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["there is no video of iteration 9 (no display); training continues."]


def test_a_short_video_is_as_fast_as_its_environment(tmp_path: Path) -> None:
    from small_player import player_for

    from ctm_rl.agents.experiments.acting import EnvConfig
    from ctm_rl.agents.video.short_video import write_short

    config = EnvConfig(id="CartPole-v1")
    player, steps = player_for(config, steps=8), []
    video = write_short(player, tmp_path / "a", steps.append)
    frames, seconds = frames_of(video.file)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (len(frames), seconds) == (3, pytest.approx(9 / 50, abs=0.01))  # every third of 50 a second
    (tmp_path / "a.gif").write_bytes(video.gif())
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.size, video.gif_size) == ((160, 106), (160, 106))


def test_videos_are_counted_in_whole_iterations() -> None:
    with pytest.raises(ValueError, match=r"video_every must be at least 0, got -1\."):
        ActingExperiment(name="a", env=experiment().env, video_every=-1)
