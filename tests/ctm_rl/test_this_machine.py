"""What this machine is."""

import os
from pathlib import Path

import numpy as np
import pytest

from ctm_rl.this_machine import count_cpus, cpu_name, version_of


def test_versions_are_those_that_are_installed() -> None:
    assert version_of("numpy") == np.__version__
    assert version_of("ctm-rl-nothing") is None


def test_a_processor_has_a_name_without_the_file_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: "processor: 0\nmodel name\t: Fast 9000\n")
    assert cpu_name() == "Fast 9000"
    monkeypatch.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(FileNotFoundError))
    assert cpu_name()


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert count_cpus() == 3
