"""Folders of images: a folder for the split, in it a folder for each class, in it the images."""

import os
from pathlib import Path

import numpy as np

from ctm_rl.envs.data.images import EncodedImages

SPLITS = ("train", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")


def check_split(split: str) -> None:
    """Refuses a name that is not one of ``SPLITS``."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")


def find_files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Returns the paths of all files below a folder with one of these endings, without hidden ones, sorted."""
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(endings) and not name.startswith(".")
    )


def find_split_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Returns the first sub-folder of one of these names that has folders in it; None where there is none."""
    return next((folder / name for name in names if _class_names(folder / name)), None)


def read_folder(split_folder: Path, class_folder: Path | None = None, num_classes: int | None = None) -> EncodedImages:
    """Lists the images below a folder of class folders; the classes are the folders' names in alphabetical order.

    Args:
        split_folder: holds a folder for each class.
        class_folder: the split that defines the classes and their numbers; default: this one.
        num_classes: how many classes there are; default: as many as there are folders.

    Returns:
        The images, not yet decoded.

    Raises:
        ValueError: there are no images, or a class that is not among those of ``class_folder``.
    """
    number = {name: index for index, name in enumerate(_class_names(class_folder or split_folder))}
    paths: list[str] = []
    labels: list[int] = []
    for name in _class_names(split_folder):
        if name not in number:
            raise ValueError(f"{split_folder} has a class {name!r} that {class_folder} does not have.")
        of_class = find_files(split_folder / name, ENDINGS)
        paths += of_class
        labels += [number[name]] * len(of_class)
    if not paths:
        raise ValueError(f"the class folders in {split_folder} hold no images ({' '.join(ENDINGS)}).")
    count = len(number) if num_classes is None else num_classes
    return EncodedImages(np.array(labels), count, str(split_folder), paths.__getitem__)


def _class_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones, sorted."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
