"""The user's own modules go with a run to the nodes of a cluster."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_modules import forget_modules, own_modules

from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.cluster.ship_package import describe_shipping, runtime_env, users_modules
from ctm_rl.agents.cluster.users_folder import remembered

NODES = [Node("a", 1.0, 0.0, has_package=True)]


@pytest.fixture
def folder(place: Path) -> Iterator[Path]:
    with own_modules(place):
        (place / "own_package" / "deep").mkdir(parents=True)
        (place / "own_package" / "__init__.py").touch()
        (place / "own_package" / "deep" / "inner.py").write_text("import own_sibling")
        (place / "own_sibling.py").touch()
        (place / "site-packages").mkdir()
        (place / "site-packages" / "own_installed.py").touch()
        yield place
    forget_modules(place)


def test_files_and_packages_that_were_imported_from_the_folder_are_sent(folder: Path) -> None:
    sys.path.insert(0, str(folder / "site-packages"))
    assert users_modules() == []
    with remembered():
        assert users_modules() == []
        for name in ("own_envs", "own_package.deep.inner", "own_installed"):
            importlib.import_module(name)
        found = users_modules()
        assert found == [folder / name for name in ("own_envs.py", "own_package", "own_sibling.py")]
    with runtime_env(NODES, found) as sent:
        assert sent == {"py_modules": [str(path) for path in found]}
    with runtime_env([NODES[0]._replace(has_package=False)], found) as sent:
        assert [Path(path).name for path in sent["py_modules"]] == ["ctm_rl", *(path.name for path in found)]
    assert describe_shipping(NODES, found) == "own_envs.py, own_package, own_sibling.py of this folder go with the run"
    assert describe_shipping(NODES) is None
