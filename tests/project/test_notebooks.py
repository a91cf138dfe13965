"""The notebooks of the documentation: their cells run in order, in a fresh namespace and without Jupyter."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import make_docs
import pytest
from gymnasium.envs import registration
from paths import GOLDEN, ROOT

NOTEBOOKS = sorted((ROOT / make_docs.NOTEBOOKS).glob("*.ipynb"))
FIGURES = {"machine": 2, "environment": 1, "inside": 5}
"""How many figures each of them draws."""


def test_notebooks_hold_no_outputs_and_name_their_cells() -> None:
    assert {notebook.stem for notebook in NOTEBOOKS} == set(FIGURES)
    for notebook in NOTEBOOKS:
        content = json.loads(notebook.read_text())
        assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
        assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the runs that notebooks read, and no screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(registration, "registry", dict(registration.registry))
    for name, source in (("first", "acting"), ("parity", "answering")):
        shutil.copytree(GOLDEN / "runs" / source, tmp_path / "runs" / name)


@pytest.mark.usefixtures("ray_session", "runs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_cells_of_a_notebook_run_one_after_the_other(notebook: Path) -> None:
    plt = importlib.import_module("matplotlib.pyplot")
    plt.switch_backend("Agg")
    plt.close("all")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"], 1):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
            # what is slow is made small here: the cell says which of its values
            names |= cell["metadata"].get("tests", {})
    try:
        assert len(plt.get_fignums()) == FIGURES[notebook.stem]
        for figure in map(plt.figure, plt.get_fignums()):
            figure.canvas.draw()
    finally:
        plt.close("all")
