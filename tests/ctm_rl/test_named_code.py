import sys
from importlib.metadata import EntryPoint

import pytest

from ctm_rl.errors import UserError
from ctm_rl.named_code import declared_code, is_code_name, load_code


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("own_code", "broken_code"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("text", ["a:B", "a.b:C", "a.b:C.d"])
def test_code_names(text):
    assert is_code_name(text)


@pytest.mark.parametrize("text", ["", "a", "a:", ":B", "a:B-v0", "a/b:C", "a:B:C", "frame-skip=4", "hf:user/set"])
def test_other_texts_are_no_code_names(text):
    assert not is_code_name(text)


def test_a_class_and_what_is_in_it_are_found(own_folder):
    (own_folder / "own_code.py").write_text("class Inner:\n    @staticmethod\n    def make(): return 7\n")
    assert load_code("own_code:Inner.make", "--env")() == 7


def test_a_declared_name_stands_for_its_value(own_folder):
    (own_folder / "own_code.py").write_text("def make(): return 7\n")
    declared = {"mine": EntryPoint("mine", "own_code:make", "ctm_rl.wrappers")}
    assert load_code("mine", "--env.wrappers", declared)() == 7


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere_at_all:Name", "there is no module nowhere_at_all in this folder, nor is it installed"),
        ("own_code:Nam", "own_code has no Nam; it has Name, number"),
        ("own_code:number", "it must be a class or a function, and is a int"),
        ("own_code", "must be module:Name, got 'own_code'"),
        (
            "broken_code:Name",
            r"importing broken_code raised ZeroDivisionError: division by zero \(.*broken_code.py:2\)",
        ),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(own_folder, name, reason):
    (own_folder / "own_code.py").write_text("class Name: ...\nnumber = 3\n")
    (own_folder / "broken_code.py").write_text("\n1 / 0\n")
    with pytest.raises(UserError, match=f"--env.*{reason}"):
        load_code(name, "--env")


def test_entry_points_of_an_unknown_group():
    assert declared_code("ctm_rl.nothing") == {}
