"""Configurations in YAML: plain values, nested or dotted names, and the line of every mistake."""

from pathlib import Path
from typing import Any

import pytest

from ctm_rl.read_yaml import MAX_BYTES, read_yaml, to_yaml


def read(tmp_path: Path, text: str) -> tuple[Any, dict[str, int]]:
    """Reads a text as a file."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    return read_yaml(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ppo: {lr: 1e-3, clip: .5}", {"ppo": {"lr": 1e-3, "clip": 0.5}}),
        ("ppo.lr: 1E6\nppo.clip: 1_000\nppo: {gamma: 1.5e+3}", {"ppo": {"lr": 1e6, "clip": 1000, "gamma": 1500.0}}),
        ("a.b.c-d: null\na:\n  b.e: [1, x, true]", {"a": {"b": {"c_d": None, "e": [1, "x", True]}}}),
        ("env.kwargs:\n  a.b: 1\n  c-d: {e.f: 2}", {"env": {"kwargs": {"a.b": 1, "c-d": {"e": {"f": 2}}}}}),
        ("day: 2026-01-02\nversion: v1.2.3", {"day": "2026-01-02", "version": "v1.2.3"}),
    ],
)
def test_names_are_nested_or_joined_by_dots(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    assert read(tmp_path, text)[0] == expected


def test_every_name_has_its_line(tmp_path: Path) -> None:
    _, lines = read(tmp_path, "# first\nppo:\n  lr: 1\n\nmodel.num-ticks: 2\n")
    assert lines == {"ppo": 2, "ppo.lr": 3, "model.num_ticks": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1\nd: 2", "line 3: "),
        ("a: 1\n  b: 2", "line 2: mapping values are not allowed here"),
        ("a: 1\na: 2", "line 2: a is given twice"),
        ("ppo.lr: 1\nppo:\n  lr: 2", "line 2: ppo.lr is given twice"),
        ("a: 1\na.b: 2", "line 2: a is given twice"),
        ("a: &x [1]\nb: *x", r"line 2: aliases \(\*name\) are not read"),
        ("a: 1\nb: !!python/object/apply:os.mkdir [made]", "line 2: values of the kind tag:yaml.org,2002:python"),
        ("a: !!python/name:os.system", "line 1: values of the kind tag:yaml.org,2002:python"),
        ("a: 1\n2: 3", "line 2: a name must be text, got 2"),
        ("", "it must hold names with values"),
        ("- a", "it must hold names with values"),
        ("a: 1\n--- \nb: 2", "line 2: "),
        ("a: " + 1000 * "[", "nested|line 1"),
        ("a: \x01", "special characters are not allowed|unacceptable character"),
        ("a: " + MAX_BYTES * "x", "it is larger than"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert not Path("made").exists()


@pytest.mark.parametrize(
    "value", ["1e6", "1_000", "2026-01-02", "null", "true", ".5", "a: b", "", 1e6, 1e-5, 3, None, [], {}]
)
def test_what_is_written_is_read_again(tmp_path: Path, value: Any) -> None:
    values = {"name": value, "group": {"list": [value, {"inner": value}]}}
    assert read(tmp_path, to_yaml(values))[0] == values
