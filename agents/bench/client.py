"""The client of a worker process: starts it, requests iterations and reports its errors in one line."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from ctm_rl.agents.bench.settings import RivalSettings
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import to_json
from ctm_rl.errors import UserError

_STOP_SECONDS = 20.0


class WorkerFailed(UserError):
    """A contender's process ended unexpectedly."""

    exit_code = 1


class Worker:
    """A process that measures one contender; a context manager that starts and stops it.

    Args:
        name: of the contender.
        experiment: what it learns; its ``address`` is that of a running Ray.
        num_threads: CPU threads of the process.
        rival: sizes of other libraries' contenders.
        label: its name in results; ``None``: that of the contender.

    Attributes:
        label: its name in results.
        description: what was built; ``None`` before that, and if the contender cannot be measured.
        unavailable: why it cannot be measured, if it cannot.
    """

    def __init__(
        self, name: str, experiment: ActingExperiment, num_threads: int, rival: RivalSettings, label: str | None = None
    ) -> None:
        self.label = label or name
        self.description: dict[str, Any] | None = None
        self.unavailable: str | None = None
        self._task = {
            "name": name,
            "experiment": to_json(experiment),
            "num_threads": num_threads,
            "rival": dataclasses.asdict(rival),
        }

    def __enter__(self) -> "Worker":
        """Starts the process, which begins to build the contender; several may build at the same time."""
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            # -P: a ctm_rl/ folder in the working directory must not hide the package.
            [sys.executable, "-P", "-W", "ignore", "-m", "ctm_rl.agents.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(self._task["num_threads"])},
            # Ctrl-C is for the measuring process alone, which stops the others.
            start_new_session=True,
        )
        self._send(json.dumps(self._task))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the process end by itself, and kills it if it does not: soon, if something else went wrong."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended already, with something unread
                pipe.close()
        try:
            process.wait(_STOP_SECONDS if error is None else 0.1)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._errors.close()

    def wait(self) -> None:
        """Waits until the contender is built, or has reported why it cannot be measured.

        Raises:
            UserError: the experiment cannot run here.
            WorkerFailed: the process has ended instead.
        """
        answer = self._receive()
        self.description = answer.get("ready")
        self.unavailable = answer.get("unavailable")

    def request(self, kind: str) -> dict[str, Any]:
        """Requests one measurement.

        Args:
            kind: ``worker.ITERATION`` or ``worker.PARTS``.

        Returns:
            What was measured.

        Raises:
            WorkerFailed: the process has ended instead.
        """
        self._send(kind)
        (result,) = self._receive().values()
        return result

    def _send(self, line: str) -> None:
        """Writes a line; if the process has ended, ``_receive`` reports it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        """Reads an answer."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise WorkerFailed(f"{self.label} failed: {self._last_error()}")
        message = json.loads(answer)
        if "error" in message:
            raise UserError(f"{self.label}: {message['error']}")
        return message

    def _last_error(self) -> str:
        """The last line that the process wrote to standard error, or its exit code."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        written = [line.strip() for line in lines if line.strip()]
        return written[-1] if written else f"its process ended with exit code {code}"
