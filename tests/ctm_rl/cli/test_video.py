"""``ctm-rl record`` and ``ctm-rl enjoy``: videos with a frame for each step, and one line for every mistake."""

import itertools
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from small_player import frames_of

from ctm_rl.cli.main import main


@pytest.fixture
def run(place: Path, golden_dir: Path) -> Path:
    """A run that acts, as ``acting``, in the working directory, beside one that answers."""
    for name in ("acting", "answering"):
        shutil.copytree(golden_dir / "runs" / name, place / name)
    return place / "acting"


def test_a_video_has_a_frame_for_each_step(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    for name in ("cartpole-iteration-000002", "cartpole-iteration-000002-2"):
        assert main(["record", "acting", "--steps", "9", "--seed", "3"]) == 0
        out, err = capsys.readouterr()
        assert out == f"1 episode: return 9.000, cut after --steps 9: {run.name}/videos/{name}.mp4\n"
        assert err == ""
        frames, seconds = frames_of(run / "videos" / f"{name}.mp4")
        assert [frame.shape for frame in frames] == [(400, 600, 3)] * 9
        assert seconds == pytest.approx(9 / 50)
        assert all((one != other).any() for one, other in itertools.pairwise(frames))


def test_an_episode_that_ends_with_the_last_step_allowed_is_not_cut(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "acting", "--seed", "3", "--out", "whole.webp"]) == 0
    found = re.search(r", (\d+) steps: ", capsys.readouterr().out)
    assert found
    steps = int(found[1])
    for more, episodes, ending in ((0, 1, f", {steps} steps: "), (0, 2, " cut after"), (-1, 1, " cut after")):
        limit = ["--steps", str(steps + more), "--episodes", str(episodes)]
        assert main(["record", "acting", "--seed", "3", "--out", "limited.webp", "--overwrite", *limit]) == 0
        assert ending in capsys.readouterr().out


def test_thinking_is_drawn_at_720p(run: Path) -> None:
    arguments = ("acting", "--with-thinking", "--n-timesteps", "3", "--fps", "10", "--out", "new/a.webp")
    assert main(["record", *arguments]) == 0
    frames, seconds = frames_of(Path("new/a.webp"))
    assert [frame.shape for frame in frames] == [(720, 1280, 3)] * 3
    assert seconds == pytest.approx(0.3)
    assert not (run / "videos").exists()


def test_without_pyav_it_is_a_webp_and_a_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["record", "acting", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("videos/cartpole-iteration-000002.webp\n")
    needs = 'ctm-rl: MP4 needs PyAV, which is not installed (pip install "ctm-rl[video]"); writing .webp instead.\n'
    assert err == needs


def test_a_policy_is_watched_as_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enjoy", "acting", "--episodes", "2", "--steps", "12", "--screen", "lines", "--with-thinking"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    pattern = r"episode 1  step 1  action push (left|right)  reward 1  return 1  probability \d\.\d+  value .+  ticks 2"
    assert re.fullmatch(pattern, lines[0])
    assert re.fullmatch(r"[12] episodes?: return [\d., ]+", last)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record"], "record needs RUN; see ctm-rl record --help."),
        (["record", "nowhere"], "nowhere is not a run directory: there is no such directory."),
        (["record", "answering"], "answering answers single samples and plays no episodes; ctm-rl report answering"),
        (["record", "acting", "--steps", "0"], "steps must be at least 1, got 0."),
        (["record", "acting", "--episodes", "0"], "episodes must be at least 1, got 0."),
        (["record", "acting", "--fps", "0"], "fps must be at least 0.1 and at most 1000.0, got 0.0."),
        (["record", "acting", "--seed", "-1"], "seed must be at least 0 and at most 2147483647, got -1."),
        (["record", "acting", "--out", "a.avi"], "--out must end with .mp4, .gif or .webp, got 'a.avi'."),
        (["record", "acting", "--out", "acting"], "--out must end with .mp4, .gif or .webp, got 'acting'."),
        (["record", "acting", "--out", "there.gif"], "--out there.gif exists; --overwrite replaces it, or name"),
        (["record", "acting", "--overwrite"], "--overwrite is for the file of --out; without it every video gets"),
        (["record", "acting", "--out", "there.gif/a.gif"], "there.gif/a.gif cannot be written: "),
        (["record", "acting", "--checkpoint", "7"], "acting has no checkpoint of iteration 7; kept are"),
        (["record", "acting", "--num-ticks", "1"], "num_ticks needs a policy trained with train_random_ticks;"),
        (["record", "acting", "--halt-certainty", "2"], "halt_certainty must be from 0 to 1, got 2.0."),
        (["record", "acting", "--stochastic"], "there is no --stochastic: actions are drawn unless --deterministic"),
        (["enjoy", "answering"], "answering answers single samples and plays no episodes; ctm-rl report answering"),
        (["enjoy", "acting", "--screen", "terminal"], "--screen terminal cannot be used: standard output is not a"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("there.gif").write_text("mine")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"ctm-rl: {message}"), err
    assert (out, err.count("\n")) == ("", 1)
    assert Path("there.gif").read_text() == "mine"
    assert not (run / "videos").exists()


UNSEEN = """
import gymnasium as gym
import numpy as np


class Unseen(gym.Env):
    observation_space = gym.spaces.Box(-9.0, 9.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), 1.0, False, False, {}
"""


def test_an_environment_that_cannot_be_rendered_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("unseen.py").write_text(UNSEEN)
    config = (run / "config.json").read_text()
    config = config.replace('"CartPole-v1"', '"unseen:Unseen"').replace('"hide-velocities"', "")
    (run / "config.json").write_text(config)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # a display that shows nothing
    for command in (["record", "acting"], ["enjoy", "acting"]):
        assert main([*command, "--trust"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("ctm-rl: unseen:Unseen cannot be rendered: "), err
        assert err.count("\n") == 1
    assert main(["enjoy", "acting", "--trust", "--steps", "3", "--screen", "lines"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert not list(run.glob("videos/*"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", ["cartpole", "minigrid-doorkey"])
def test_200_steps_are_written_and_played_back(name: str, place: Path) -> None:
    from tiny_runs import TINY_ACTING

    pytest.importorskip("av")
    tiny = (*TINY_ACTING, "--ppo.num-rollout-steps", "10", "--budget.env-steps", "40")
    assert main(["train", name, *tiny, "--run-dir", "a"]) == 0
    for file, more in (("a.mp4", ("--with-thinking",)), ("b.mp4", ()), ("a.webp", ()), ("a.gif", ())):
        assert main(["record", "a", "--steps", "200", "--episodes", "200", "--out", file, *more]) == 0
        frames, seconds = frames_of(Path(file))
        # Frames that are alike are one frame in a WebP or GIF, which lasts longer.
        assert len(frames) == 200 or (len(frames) > 20 and not file.endswith(".mp4"))
        assert seconds == pytest.approx(200 / (50 if name == "cartpole" else 10), rel=0.01)
        assert all(np.ptp(frame) > 100 for frame in frames)
