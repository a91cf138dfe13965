"""Reading options: every way to write a value, and what is refused before tyro sees it."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
import tyro

from ctm_rl.agents.experiments.json_option import JsonObject
from ctm_rl.cli.check_arguments import divide, parse
from ctm_rl.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A nested dataclass."""

    width: int = 3
    is_deep: bool = False

    def __post_init__(self) -> None:
        """Refuses a width, naming the field alone as the models do."""
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Every kind of option."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    model: Model = dataclasses.field(default_factory=Model)
    lr: float = 1.0
    minutes: float | None = None
    sizes: tuple[int, ...] = ()
    search: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    mode: Literal["max", "min"] | None = None
    kwargs: JsonObject = dataclasses.field(default_factory=dict)
    use_lstm: bool = True
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuses a combination."""
        if self.lr == 9:
            raise ValueError("lr cannot be 9.")


GIVEN = ("runs/a", "--out", "b")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"dir": "runs/a", "out": "b", "lr": 1.0}),
        (("--lr", "-1e-3"), {"lr": -1e-3}),
        (("--lr", "-.5"), {"lr": -0.5}),
        (("--lr", "-inf"), {"lr": float("-inf")}),
        (("--minutes", "None"), {"minutes": None}),
        (("--minutes", "2"), {"minutes": 2.0}),
        (("--sizes", "1", "-2", "--lr", "3"), {"sizes": (1, -2), "lr": 3.0}),
        (("--sizes=1", "2"), {"sizes": (1, 2)}),
        (("--sizes",), {"sizes": ()}),
        (("--search", "a=1", "--search", "b=2"), {"search": ("a=1", "b=2")}),
        (("--mode", "min"), {"mode": "min"}),
        (("--kwargs", '{"a": [1]}'), {"kwargs": {"a": [1]}}),
        (("--no-use-lstm",), {"use_lstm": False}),
        (("--use_lstm=False", "--model.is_deep"), {"use_lstm": False, "model": Model(is_deep=True)}),
        (("--model.no-is-deep", "--model.width", "5"), {"model": Model(width=5)}),
        (("--out=--strange",), {"out": "--strange"}),
        (("--model.width", "1e3", "--count=2_000", "--sizes", "1e1", "+2.0"), {"count": 2000, "sizes": (10, 2)}),
        (("--model.width=1E3", "--count", "None"), {"model": Model(width=1000), "count": None}),
    ],
)
def test_values_are_read_however_they_are_written(arguments: Sequence[str], expected: dict[str, Any]) -> None:
    options = parse(Options, [*GIVEN, *arguments], "ctm-rl test")
    assert {name: getattr(options, name) for name in expected} == expected


def test_what_follows_two_dashes_is_positional() -> None:
    assert parse(Options, ["--out", "b", "--", "runs/a"], "ctm-rl test").dir == "runs/a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "test needs DIR and --out FILE; see ctm-rl test --help."),
        (("runs/a",), "test needs --out FILE; see ctm-rl test --help."),
        ((*GIVEN, "c"), "unexpected argument 'c'; options are --name value, see ctm-rl test --help."),
        ((*GIVEN, "--wdth", "2"), "unknown option --wdth; did you mean --model.width? All are listed by"),
        ((*GIVEN, "--zzz"), "unknown option --zzz; all options are listed by ctm-rl test --help-all."),
        ((*GIVEN, "--model", "2"), "unknown option --model; it is a group of options, such as --model.width; all are"),
        ((*GIVEN, "--count", "1.5"), "--count must be a whole number or None, got '1.5'."),
        ((*GIVEN, "--count", "1e400"), "--count must be a whole number or None, got '1e400'."),
        ((*GIVEN, "--sizes", "1", "1e-3"), "got '1 1e-3'."),
        ((*GIVEN, "--lr", "--sizes"), "--lr needs a value: a number."),
        ((*GIVEN, "--lr="), "--lr must be a number, got ''."),
        ((*GIVEN, "--lr", "fast"), "--lr must be a number, got 'fast'."),
        ((*GIVEN, "--minutes", "none"), "--minutes must be a number or None, got 'none'."),
        ((*GIVEN, "--sizes", "1", "x"), "--sizes must be a whole number, any number of times, separated by spaces, go"),
        ((*GIVEN, "--mode", "best"), "--mode must be one of max, min or None, got 'best'."),
        ((*GIVEN, "--kwargs", "[1]"), """--kwargs must be a JSON object, such as '{"size": 5}', got '[1]'."""),
        ((*GIVEN, "--kwargs", "{"), "--kwargs must be a JSON object, such as"),
        ((*GIVEN, "--use-lstm=maybe"), "--use-lstm must be True or False, got 'maybe'."),
        ((*GIVEN, "--search"), "--search needs a value: text."),
        ((*GIVEN, "--model.width", "0"), "model.width must be at least 1, got 0."),
        ((*GIVEN, "--lr", "9"), "lr cannot be 9."),
    ],
)
def test_each_mistake_has_its_line(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Options, arguments, "ctm-rl test")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_suggestions_include_the_options_of_another_dataclass() -> None:
    with pytest.raises(UserError, match=r"unknown option --us-lstm; did you mean --use-lstm\?"):
        parse(Model, ["--us-lstm", "True"], "ctm-rl test", also=Options)


def test_options_of_one_dataclass_are_separated_from_the_others() -> None:
    arguments = ["cartpole", "--width", "-3", "--seed", "2", "--no-is-deep", "--lr=1"]
    assert divide(Model, arguments) == (["--width", "-3", "--no-is-deep"], ["cartpole", "--seed", "2", "--lr=1"])
