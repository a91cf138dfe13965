"""A run of Weights & Biases, online or offline, by environment steps."""

import io
import netrc
import os
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.loggers.groups import tag_of
from ctm_rl.agents.loggers.protocol import VIDEO_TAG, LoggedVideo, StepCounts
from ctm_rl.agents.loggers.run_ids import read_run_id, write_run_id
from ctm_rl.agents.loggers.wandb_records import cut_file, is_finished
from ctm_rl.agents.run_directory.directory import SWEEP_FILE, config_of
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row

PROJECT = "ctm-rl"
_SERVICE = "wandb"
_FINISH_SECONDS = 60.0
"""How long the end of a run waits for an upload; what is left can be uploaded by ``wandb sync``."""
_WRITE_SECONDS = 10.0
"""How long the process that writes W&B's file may take to end it."""


class WandbRun:
    """Logs to one W&B run, which a resumed run continues.

    Without ``WANDB_MODE`` it is online if there is a key, and offline otherwise; nothing is asked. An offline run is a
    folder below ``wandb/`` for each start of the run, all with the same id, which ``wandb sync`` uploads to one run.
    What was logged after the checkpoint of a resumed run is cut from these folders. A server keeps what it has: there
    the points up to the last one before the stop remain as they were. Points that W&B lost when a run was killed are
    logged again from ``metrics.jsonl``.
    """

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, experiment: AnyExperiment, run_dir: Path, resumed_from: int | None) -> None:
        """See ``Logger``."""
        self._experiment, self._run_dir = experiment, run_dir
        self._steps = StepCounts(run_dir, resumed_from)
        self._last_step = 0
        self._id = (None if resumed_from is None else read_run_id(run_dir, _SERVICE)) or secrets.token_hex(4)
        write_run_id(run_dir, _SERVICE, self._id)
        if resumed_from is not None:
            self._cut(resumed_from)
        self._open()

    def write(self, row: Row, step: int) -> None:
        """See ``Logger``."""
        self._steps.add(row, step)
        if self._run is None:
            self._open()
        self._log(row, step)

    def write_video(self, video: LoggedVideo, step: int) -> None:
        """See ``VideoLogger``: logged together with the metrics of its iteration, which follow."""
        import wandb  # pyright: ignore[reportMissingImports]

        if self._run is None:
            self._open()
        run: Any = self._run
        if step > self._last_step:
            is_mp4 = video.file.suffix == ".mp4"  # W&B takes no WebP
            shown = str(video.file) if is_mp4 else io.BytesIO(video.gif())
            run.log({VIDEO_TAG: wandb.Video(shown, format="mp4" if is_mp4 else "gif")}, step=step, commit=False)

    def truncate(self, iteration: int) -> None:
        """See ``Logger``."""
        last = self._steps.truncate(iteration)
        if last is not None and last < self._last_step:
            self.close()
            self._cut(iteration)

    def close(self) -> None:
        """See ``Logger``."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish()
            deadline = time.monotonic() + _WRITE_SECONDS
            while not all(map(is_finished, self._files[-1:])) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _open(self) -> None:
        """Starts W&B, with the same id as before, and logs what it has not got of the metrics so far."""
        import wandb  # pyright: ignore[reportMissingImports]

        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        group = self._run_dir.parent.name if (self._run_dir.parent / SWEEP_FILE).is_file() else None
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=os.environ.get("WANDB_RUN_GROUP", group),
            name=os.environ.get("WANDB_NAME", self._run_dir.name),
            id=self._id,
            dir=str(self._run_dir),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            config=config_of(self._experiment),
            allow_val_change=True,
            settings=wandb.Settings(
                silent=mode != "online",
                console="off",
                save_code=False,
                disable_code=True,
                disable_git=True,
                finish_timeout=_FINISH_SECONDS,
            ),
        )
        self._last_step = max(self._last_step, self._run.step - 1)
        for row in read_metrics(self._run_dir):
            self._log(row, int(row.get("env_steps") or 0))

    def _log(self, row: Row, step: int) -> None:
        """Logs a row, unless it or a later one has been logged."""
        if step > self._last_step:
            values = {tag_of(name): value for name, value in row.items() if value is not None}
            self._run.log(values, step=step, commit=True)
            self._last_step = step

    def _cut(self, iteration: int) -> None:
        """Cuts the folders of offline runs off after an iteration."""
        last = self._steps.truncate(iteration)
        if last is not None:
            self._last_step = max((found for file in self._files if (found := cut_file(file, last))), default=0)

    @property
    def _files(self) -> list[Path]:
        """The files of the run's offline folders, in their order; W&B adds a number to a name that is taken."""
        folders = self._run_dir.glob(f"wandb/offline-run-*-{self._id}*")
        order = sorted(folders, key=lambda folder: (folder.name.split("-")[2], len(folder.name), folder.name))
        return [file for folder in order for file in folder.glob("*.wandb")]


def _has_key() -> bool:
    """Whether W&B finds a key without asking: in the environment, or where ``wandb login`` keeps it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
