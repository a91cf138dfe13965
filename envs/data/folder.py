"""Folders of images: a folder for the split, in it a folder for each class, in it the images."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.errors import printable
from ctm_rl.notes import note

SPLITS = ("train", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information"),
        *("lost+found", "found.000", "~snapshot", "network trash folder", "temporary items", "cvs"),
    )
)
"""Folders that systems, archives and editors make, in small letters; names that begin with a dot are others."""
_NUM_SAMPLED = 32
"""Images of a folder whose kind is checked when it is opened."""
_NUM_NAMED = 3
"""Names that one message lists of each kind."""


class Skipped:
    """What a search in a folder left out, for one message about all of it."""

    def __init__(self) -> None:
        self._names: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, name: str) -> None:
        """Counts one file or folder.

        Args:
            kind: what it is, in the plural.
            name: its name.
        """
        self._names[kind].append(name)

    def report(self, folder: Path) -> None:
        """Reports in one line how many of which kind were left out, if any were."""
        if self._names:
            kinds = [f"{kind}: {len(names)} ({list_names(names)})" for kind, names in self._names.items()]
            line = f"in {printable(folder)} were skipped {', '.join(kinds)}."
            note(line, line)


class _Trees:
    """The folders that a search reads with all that lies below them, by their real paths.

    Args:
        folder: where the search begins.
    """

    def __init__(self, folder: Path) -> None:
        self._roots: set[str] = set()
        self._above: set[str] = set()
        self._add(os.path.realpath(folder))

    def add_link(self, link: "Path | os.DirEntry[str]", skipped: Skipped) -> bool:
        """Adds the folder that a link leads to; False where it holds, or lies in, one that is read on its own."""
        target = os.path.realpath(link)
        is_new = target not in self._above and self._roots.isdisjoint((target, *map(str, Path(target).parents)))
        if is_new:
            self._add(target)
        else:
            skipped.add("links to folders that are read anyway", link.name)
        return is_new

    def _add(self, root: str) -> None:
        self._roots.add(root)
        self._above.update(map(str, Path(root).parents))


def list_names(names: list[str], most: int = _NUM_NAMED) -> str:
    """The first of some names, as they may be printed, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name, 60) for name in names[:most]) + more


def check_split(split: str) -> None:
    """Refuses a name that is not one of ``SPLITS``."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {printable(repr(split))}.")


def find_files(folder: Path, endings: tuple[str, ...], skipped: Skipped | None = None) -> list[str]:
    """Returns the paths of all regular files below a folder with one of these endings, sorted.

    Links are followed, but each folder is read once, and links in a circle end nowhere. Hidden files and folders, those
    of the system, and what is no regular file (FIFOs, devices, links to nothing) are left out.

    Args:
        folder: where to look.
        endings: of the files' names, in small letters.
        skipped: counts what is left out.

    Raises:
        ValueError: a folder cannot be read.
    """
    return sorted(_walk(folder, endings, _Trees(folder), skipped or Skipped()))


def list_kinds(folder: Path) -> dict[str, str]:
    """Returns the names of what lies in a folder, with what each leads to: ``file``, ``folder`` or ``other``."""
    return {entry.name: _kind(entry) for entry in _scan(folder)}


def sub_folders(folder: Path, skipped: Skipped | None = None) -> list[Path]:
    """Returns the folders in a folder, sorted, without hidden ones and those of the system.

    Args:
        folder: where to look; need not be a folder.
        skipped: counts what is left out.
    """
    skipped = skipped or Skipped()
    entries = _scan(folder) if folder.is_dir() else ()
    return sorted(Path(entry.path) for entry in entries if _kind(entry) == "folder" and _is_wanted(entry, skipped))


def find_split_folder(folder: Path, names: tuple[str, ...], *, has_images: bool = True) -> Path | None:
    """Finds the folder of a split, in small or capital letters; also one level down, as ``train/train``.

    Args:
        folder: holds a folder for each split.
        names: names of the split; the first that is found is used.
        has_images: whether there must be images in its class folders.

    Returns:
        The folder with the class folders; None where there is none.
    """
    by_name: dict[str, Path] = {}
    for place in sub_folders(folder):
        by_name.setdefault(place.name.casefold(), place)
        by_name[place.name] = place
    for place in (by_name[name] for name in names if name in by_name):
        classes = sub_folders(place)
        if len(classes) == 1 and classes[0].name.casefold() == place.name.casefold():
            place, classes = classes[0], sub_folders(classes[0])
        if any(_has_images(path) for path in classes) if has_images else classes:
            return place
    return None


def read_folder(split_folder: Path, class_folder: Path | None = None, num_classes: int | None = None) -> EncodedImages:
    """Lists the images below a folder of class folders.

    The classes are the names of the folders that hold images, in alphabetical order.

    Args:
        split_folder: holds a folder for each class.
        class_folder: the split that defines the classes and their numbers; default: this one.
        num_classes: how many classes there are; default: as many as there are folders with images.

    Returns:
        The images, not yet decoded.

    Raises:
        ValueError: there are no images, a class that is not among those of ``class_folder``, or images of a kind that
            is not read.
    """
    skipped = Skipped()
    folders, trees = _class_folders(split_folder, skipped)
    found = {path.name: sorted(_walk(path, ENDINGS, trees, skipped)) for path in folders}
    for name in [name for name, paths in found.items() if not paths]:
        skipped.add("folders without images", name)
        del found[name]
    if not found:
        raise ValueError(f"the class folders in {printable(split_folder)} hold no images ({' '.join(ENDINGS)}).")
    skipped.report(split_folder)
    classes = list(found)
    if class_folder is not None and class_folder != split_folder:
        classes = [path.name for path in _class_folders(class_folder, Skipped())[0] if _has_images(path)]
    number = {name: index for index, name in enumerate(classes)}
    if unknown := next((name for name in found if name not in number), None):
        where = printable(class_folder)
        raise ValueError(f"{printable(split_folder)} has a class '{printable(unknown)}' that {where} does not have.")
    if missing := [name for name in classes if name not in found]:
        count = f"{len(missing)} of the {len(classes)} classes"
        line = f"{printable(split_folder)} has no images of {count}: {list_names(missing)}."
        note(line, line)
    paths = [path for of_class in found.values() for path in of_class]
    labels = np.repeat([number[name] for name in found], [len(of_class) for of_class in found.values()])
    count = len(number) if num_classes is None else num_classes
    images = EncodedImages(labels, count, str(split_folder), paths.__getitem__)
    images.class_names = classes
    images.check_kinds(range(0, len(paths), -(-len(paths) // _NUM_SAMPLED)))
    return images


def _class_folders(folder: Path, skipped: Skipped) -> tuple[list[Path], "_Trees"]:
    """The folders of the classes, without links to each other or above, and what is read with them."""
    trees = _Trees(folder)
    folders = sub_folders(folder, skipped)
    return [path for path in folders if not path.is_symlink() or trees.add_link(path, skipped)], trees


def _has_images(folder: Path) -> bool:
    """Whether an image lies anywhere below a folder."""
    return any(True for _ in _walk(folder, ENDINGS, _Trees(folder), Skipped()))


def _walk(folder: Path, endings: tuple[str, ...], trees: "_Trees", skipped: Skipped) -> Iterator[str]:
    """The files below a folder with one of these endings, in no order."""
    pending = [os.fspath(folder)]
    while pending:
        for entry in _scan(pending.pop()):
            kind = _kind(entry)
            if kind == "folder":
                if _is_wanted(entry, skipped) and (not entry.is_symlink() or trees.add_link(entry, skipped)):
                    pending.append(entry.path)
            elif entry.name.lower().endswith(endings) and not entry.name.startswith("."):
                if kind == "file":
                    yield entry.path
                else:
                    skipped.add("entries that are no regular files", entry.name)


def _scan(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise ValueError(f"{printable(folder)} cannot be read ({error.strerror}).") from error


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is or a link leads to; neither ``file`` nor ``folder`` are FIFOs, devices and links to nothing."""
    try:
        return "file" if entry.is_file() else "folder" if entry.is_dir() else "other"
    except OSError:  # links in a circle
        return "other"


def _is_wanted(entry: os.DirEntry[str], skipped: Skipped) -> bool:
    """Whether a folder is neither hidden nor the system's."""
    is_wanted = not entry.name.startswith(".") and entry.name.casefold() not in SYSTEM_FOLDERS
    if not is_wanted:
        skipped.add("hidden or system folders", entry.name)
    return is_wanted
