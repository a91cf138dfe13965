"""Pictures: what does this show?"""

from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Discrete
from PIL import Image

from ctm_rl.envs.data.auto_augment import auto_augment
from ctm_rl.envs.data.crops import NUM_CROP_DRAWS, centre_crop, crop_and_flip, random_resized_crop
from ctm_rl.envs.data.images import ArrayPictures, EncodedPictures, PictureSet, resize_all
from ctm_rl.envs.data.open_dataset import open_pictures
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv

DEFAULT_SIZE = 224
"""Height and width of pictures that come in many sizes."""


class ImagesTask(SingleStepTask):
    """Pictures with their classes; see ``ImagesEnv``."""

    def __init__(
        self,
        dataset: str = "mnist",
        path: str | Path | None = None,
        split: str = "train",
        augment: bool | None = None,
        size: int | None = None,
    ) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, got {size}.")
        if dataset == "mnist" and augment:
            raise ValueError("mnist is shown as it is; augment must be False or left out.")
        pictures = open_pictures(dataset, path, split)
        views = _views(pictures, split == "train" if augment is None else augment, size, dataset)
        super().__init__(Box(0, 255, views.shape, np.uint8), Discrete(pictures.num_classes))
        self.pictures = pictures
        self._views = views

    @property
    def num_samples(self) -> int:
        """How many pictures there are."""
        return len(self.pictures)

    @property
    def num_broken(self) -> int:
        """How many pictures could not be decoded when their turn came; the next one was shown instead."""
        return self.pictures.num_broken if isinstance(self.pictures, EncodedPictures) else 0

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws pictures [N, H, W, C], one as likely as another and each time anew, and their classes [N]."""
        return self.take(rng, rng.integers(len(self.pictures), size=num_samples))

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Shows certain pictures [N, H, W, C], with their classes [N]; ``rng`` augments them."""
        return self._views.take(rng, indices)


class _ArrayViews:
    """Pictures in memory: resized once, augmented all at once."""

    def __init__(self, pictures: ArrayPictures, augment: bool, size: int | None) -> None:
        self._array = pictures.array if size is None else resize_all(pictures.array, size)
        self._labels = pictures.labels
        self._augment = augment
        self.shape = self._array.shape[1:]

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        shown = self._array[indices]
        if self._augment:
            shown = auto_augment(crop_and_flip(shown, rng), rng)
        return Samples(shown, self._labels[indices])


class _EncodedViews:
    """Pictures decoded when they are shown, each into a crop of its own."""

    def __init__(self, pictures: EncodedPictures, augment: bool, size: int | None) -> None:
        self._pictures = pictures
        self._augment = augment
        self._size = DEFAULT_SIZE if size is None else size
        self.shape = (self._size, self._size, 3)

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        # All that is random is drawn beforehand, so that a broken picture changes nothing for the others.
        draws = rng.random((len(indices), NUM_CROP_DRAWS)) if self._augment else np.empty((len(indices), 0))
        shown = np.empty((len(indices), *self.shape), np.uint8)
        labels = np.empty(len(indices), np.int64)
        for row, index in enumerate(indices.tolist()):

            def view(image: Image.Image, drawn: np.ndarray = draws[row]) -> np.ndarray:
                return (
                    random_resized_crop(image, self._size, drawn) if self._augment else centre_crop(image, self._size)
                )

            shown[row], used = self._pictures.read(index, view)
            labels[row] = self._pictures.labels[used]
        return Samples(shown, labels)


def _views(pictures: PictureSet, augment: bool, size: int | None, dataset: str) -> "_ArrayViews | _EncodedViews":
    """How the pictures of a data set are shown."""
    if isinstance(pictures, EncodedPictures):
        return _EncodedViews(pictures, augment, size)
    assert isinstance(pictures, ArrayPictures)
    return _ArrayViews(pictures, augment and dataset != "mnist", size)


class ImagesEnv(SingleStepEnv):
    """Tells which class a picture belongs to. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(0, 255, (height, width, channels), uint8)``: 28 x 28 x 1 for ``mnist``, 32 x 32 x 3 for ``cifar10`` and
    ``cifar100``, 224 x 224 x 3 for ``imagenet`` and ``folder``; height and width are ``size`` where that is given.

    ## Action space
    ``Discrete(num_classes)``: 10, 10, 100; for ``imagenet`` and ``folder`` as many as the data set has.

    ## Rewards
    1 for the right class, else 0.

    ## Starting state
    A picture of the data set, each as likely as another, or ``reset(options={"index": i})``. To train on, CIFAR is
    shifted by up to 4 pixels, mirrored every other time and changed by AutoAugment (arXiv:1805.09501); ``imagenet`` and
    ``folder`` show a random part (8 to 100 % of the area, 3/4 to 4/3 as wide as high), resized, mirrored every other
    time. To test on, ``imagenet`` and ``folder`` show the middle, 224 of 256 parts of the short side. Where a picture
    cannot be decoded, the next one is shown.

    ## Episode end
    After one step.

    ## Arguments
    ``dataset``: ``mnist`` (default), ``cifar10``, ``cifar100``, ``imagenet`` or ``folder``.

    ``path``: where it lies: MNIST's idx files, CIFAR's binary version, parquet files (``train-*.parquet``), or folders
    (``train/<class>/<picture>``); ``hf:NAME`` takes it from the Hugging Face hub and needs ``ctm-rl[datasets]``. Left
    out: 5,000 digits of MNIST shipped in this package, 4,000 to train on and 1,000 to test on.

    ``split``: ``train`` (default) or ``test``.

    ``augment``: whether pictures are changed at random; default: ``train`` ones are. ``mnist`` never.

    ``size``: height and width in pixels; default: as above.
    """

    task_class = ImagesTask


class ImagesVectorEnv(SingleStepVectorEnv):
    """Many of ``ImagesEnv``, which share one data set."""

    task_class = ImagesTask
