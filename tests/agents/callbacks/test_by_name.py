"""Callbacks by name and as objects: what is made, and what is refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from ctm_rl.agents import Callback
from ctm_rl.agents.callbacks.by_name import make_callbacks
from ctm_rl.errors import UserError

MODULE = """
from ctm_rl.agents import Callback

class Good(Callback):
    def on_iteration(self, run, metrics): pass

class Flexible(Callback):
    def on_iteration(self, *arguments, **named): pass

def make():
    return Good()

class Sized(Callback):
    def __init__(self, size): pass

class FromStableBaselines(Callback):
    def _on_step(self): return True

class Misspelt(Callback):
    def on_checkpoints(self, run, path): pass

class WithoutRun(Callback):
    def on_iteration(self, metrics): pass

class Unrelated: pass
"""


@pytest.fixture
def module(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"hooks_{place.name.replace('-', '_')}"
    (place / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(place)
    return name


def test_classes_functions_and_objects_are_callbacks_in_this_order(module: str) -> None:
    class Mine(Callback):
        pass

    mine = Mine()
    made = make_callbacks([f"{module}:Good", f"{module}:make", f"{module}:Flexible"], mine)
    assert [name for name, _ in made] == [f"{module}:Good", f"{module}:make", f"{module}:Flexible", "Mine"]
    assert [type(one).__name__ for _, one in made] == ["Good", "Good", "Flexible", "Mine"]
    assert make_callbacks([], [mine])[0][1] is mine
    assert make_callbacks([]) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Sized", r"Sized: it cannot be made without arguments \(TypeError: .*size"),
        ("FromStableBaselines", "no run calls _on_step; .* did you mean on_iteration?"),
        ("Misspelt", "no run calls on_checkpoints; .* did you mean on_checkpoint?"),
        ("WithoutRun", r"on_iteration must take \(self, run, metrics\); .*, it takes \(metrics\)"),
        ("Unrelated", "must be a ctm_rl.agents.Callback, and is a Unrelated"),
        ("Nothing", "has no Nothing; it has Callback, Flexible, FromStableBaselines, Good"),
    ],
)
def test_what_is_no_callback_is_refused_in_one_line(name: str, message: str, module: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_callbacks([f"{module}:{name}"])
    assert str(caught.value).startswith("--callbacks ")


def test_objects_are_checked_too() -> None:
    classes: Any = [Callback]
    with pytest.raises(UserError, match=r"pass an object, Callback\(\), and not the class"):
        make_callbacks([], classes)
