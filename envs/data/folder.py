"""Folders of pictures: a folder for the split, in it a folder for each class, in it the pictures."""

import os
from pathlib import Path

import numpy as np

from ctm_rl.envs.data.images import EncodedPictures

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")


def find_split_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first sub-folder of one of these names that has folders in it; None where there is none."""
    return next((folder / name for name in names if _class_names(folder / name)), None)


def read_folder(
    split_folder: Path, class_folder: Path | None = None, num_classes: int | None = None
) -> EncodedPictures:
    """Lists the pictures below a folder of class folders; the classes are the folders' names in alphabetical order.

    Args:
        split_folder: holds a folder for each class.
        class_folder: the split that says which classes there are and how they are numbered; default: this one.
        num_classes: how many classes there are; default: as many as there are folders.

    Returns:
        The pictures, not yet decoded.

    Raises:
        ValueError: there are no pictures, or a class that is not among those of ``class_folder``.
    """
    number = {name: index for index, name in enumerate(_class_names(class_folder or split_folder))}
    unknown = [name for name in _class_names(split_folder) if name not in number]
    if unknown:
        raise ValueError(f"{split_folder} has a class {unknown[0]!r} that {class_folder} has not.")
    paths: list[str] = []
    labels: list[int] = []
    for name in _class_names(split_folder):
        of_class = _picture_paths(split_folder / name)
        paths += of_class
        labels += [number[name]] * len(of_class)
    if not paths:
        raise ValueError(f"the class folders in {split_folder} hold no pictures ({' '.join(ENDINGS)}).")
    count = len(number) if num_classes is None else num_classes
    return EncodedPictures(np.array(labels), count, str(split_folder), paths.__getitem__)


def _class_names(folder: Path) -> list[str]:
    """The folders in a folder, hidden ones left out, in order."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _picture_paths(folder: Path) -> list[str]:
    """The pictures anywhere below a folder, in order."""
    found = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(ENDINGS) and not name.startswith(".")
    ]
    return sorted(found)
