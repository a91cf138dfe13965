"""The contents of a report as JSON."""

import base64
import json

import numpy as np
import pytest

from ctm_rl.agents.report.document import Document, Images, Line, Lines, Machine, Matrix, Picture, Section, to_plain


def decode(part: dict) -> np.ndarray:
    types = {"f16": "<f2", "f32": "<f4", "i32": "<i4", "u8": "u1"}
    return np.frombuffer(base64.b64decode(part["data"]), types[part["type"]]).reshape(part["shape"])


def test_arrays_come_back_as_they_were() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    written = to_plain(Matrix(title="t", values=values.transpose(0, 2, 1), x_label="x", y_label="y"))
    assert written["kind"] == "matrix"
    assert written["values"]["type"] == "f16"
    np.testing.assert_allclose(decode(written["values"]), values.transpose(0, 2, 1), rtol=1e-3)


def test_charts_are_written_in_single_precision() -> None:
    steps = np.array([0.0, 100_000.0, 1_000_000.0])
    written = to_plain(Lines(title="t", x=steps, lines=[Line(name="l", y=steps)], x_label="x", y_label="y"))
    assert written["x"]["type"] == "f32"
    assert decode(written["x"]).tolist() == steps.tolist()


def test_half_precision_stays_half() -> None:
    weights = np.array([0.5, -2.0], np.float16)
    written = to_plain(Machine(title="t", task="mazes", model={"weight": weights, "bias": weights.astype(np.float32)}))
    assert [written["model"][name]["type"] for name in ("weight", "bias")] == ["f16", "f32"]
    assert decode(written["model"]["weight"]).tolist() == weights.tolist()


def test_whole_numbers_flags_and_images() -> None:
    frames = Images(mime="image/webp", files=[b"one", b"two"])
    shown = to_plain(Picture(title="t", images=frames, shown=np.array([0, 1, 1])))
    assert [base64.b64decode(one) for one in shown["images"]["files"]] == [b"one", b"two"]
    assert shown["shown"] == {"type": "i32", "shape": [3], "data": shown["shown"]["data"]}
    assert decode(shown["shown"]).tolist() == [0, 1, 1]
    assert to_plain(np.array([True, False]))["type"] == "u8"


def test_numbers_that_are_not_finite_are_null() -> None:
    document = Document(title="t", sections=[Section(name="s", title="S")], subtitle="x")
    assert json.loads(json.dumps(to_plain(document), allow_nan=False))["sections"][0]["name"] == "s"
    assert to_plain([1.0, float("nan"), float("inf"), np.float32("nan"), np.int64(3)]) == [1.0, None, None, None, 3]


def test_text_is_no_array() -> None:
    with pytest.raises(TypeError, match="must hold numbers"):
        to_plain(np.array(["a"]))
