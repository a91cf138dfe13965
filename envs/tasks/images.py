"""Image classification as a single-step task."""

import functools
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Discrete

from ctm_rl.envs.data.auto_augment import auto_augment
from ctm_rl.envs.data.crops import NUM_CROP_DRAWS, centre_crop, crop_and_flip, random_resized_crop
from ctm_rl.envs.data.images import ArrayImages, EncodedImages, check_num_images, resize_all
from ctm_rl.envs.data.open_dataset import open_images
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv

DEFAULT_SIZE = 224
"""Height and width of images that come in many sizes."""
MAX_SIZE = 4096
"""Largest height and width in pixels."""


class ImagesTask(SingleStepTask):
    """Images with their classes; see ``ImagesEnv``."""

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
        if size is not None and size > MAX_SIZE:
            raise ValueError(f"size must be at most {MAX_SIZE}, got {size}.")
        if dataset == "mnist" and augment:
            raise ValueError("mnist is never augmented; augment must be False or left out.")
        self.images = images = open_images(dataset, path, split)
        self._is_augmented = dataset != "mnist" and (split == "train" if augment is None else augment)
        self._size = DEFAULT_SIZE if size is None else size
        shape = (self._size, self._size, 3)
        if isinstance(images, ArrayImages):
            if size is not None:
                check_num_images(len(images), images.source, (size, size, images.array.shape[3]))
            self._array = images.array if size is None else resize_all(images.array, size)
            shape = self._array.shape[1:]
        super().__init__(Box(0, 255, shape, np.uint8), Discrete(images.num_classes))

    @property
    def num_samples(self) -> int:
        """How many images there are."""
        return len(self.images)

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws images [N, H, W, C], uniformly and independently, and their classes [N]."""
        return self.take(rng, rng.integers(len(self.images), size=num_samples))

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Returns the images at some indices [N, H, W, C], with their classes [N]; ``rng`` augments them."""
        if isinstance(self.images, EncodedImages):
            return self._decode(self.images, rng, indices)
        array = self._array[indices]
        if self._is_augmented:
            array = auto_augment(crop_and_flip(array, rng), rng)
        return Samples(array, self.images.labels[indices])

    def _decode(self, images: EncodedImages, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Decodes and crops images one by one."""
        # All random numbers are drawn beforehand, so that a broken image does not change the crops of the others.
        draws = rng.random((len(indices), NUM_CROP_DRAWS)) if self._is_augmented else None
        array = np.empty((len(indices), self._size, self._size, 3), np.uint8)
        labels = np.empty(len(indices), np.int64)
        for row, index in enumerate(indices.tolist()):
            view = functools.partial(centre_crop, size=self._size)
            if draws is not None:
                view = functools.partial(random_resized_crop, size=self._size, draws=draws[row])
            array[row], used = images.read(index, view)
            labels[row] = images.labels[used]
        return Samples(array, labels)


class ImagesEnv(SingleStepEnv):
    """Classifies images. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(0, 255, (height, width, channels), uint8)``: 28 x 28 x 1 for ``mnist``, 32 x 32 x 3 for ``cifar10`` and
    ``cifar100``, 224 x 224 x 3 for ``imagenet`` and ``folder``; height and width are ``size`` where that is given.

    ## Action space
    ``Discrete(num_classes)``: 10, 10, 100; for ``imagenet`` and ``folder`` as many as the data set has.

    ## Rewards
    1 for the right class, else 0.

    ## Starting state
    An image of the data set, drawn uniformly, or ``reset(options={"index": i})``. For training, CIFAR is shifted
    by up to 4 pixels, flipped every other time and changed by AutoAugment (arXiv:1805.09501); of ``imagenet`` and
    ``folder`` a random crop (8 to 100 % of the area, aspect ratio 3/4 to 4/3) is resized and flipped every other time.
    For testing, ``imagenet`` and ``folder`` are cropped to the centre, 224/256 of the short side. An image that cannot
    be decoded is replaced by the next one.

    JPEG, PNG, BMP, WebP, PNM, GIF and TIFF files are decoded, of at most 89 million pixels. Photographs are turned
    upright as their EXIF data say, grey of 16 bits is scaled to 8, and what is transparent shows mid-grey. Floats,
    signed and 32-bit integers have no known range of brightness and are refused by name.

    ## Episode end
    After one step.

    ## Arguments
    ``dataset``: ``mnist`` (default), ``cifar10``, ``cifar100``, ``imagenet`` or ``folder``.

    ``path``: where it is, or the folder above: MNIST's idx files, CIFAR's binary version, folders
    (``train/<class>/<image>``; hidden, system and empty ones are no classes), or parquet files (``train-*.parquet``)
    with a column of encoded images (``image``, ``img``, ``pixel_values``, ``jpg``, ...) and one of classes (``label``,
    ``labels``, ``cls``, ...: integers, or words, which are numbered in alphabetical order); ``hf:NAME`` loads it from
    the Hugging Face hub and needs ``ctm-rl[datasets]``. Default: 5,000 digits of MNIST shipped in this package, 4,000
    for training and 1,000 for testing.

    ``split``: ``train`` (default) or ``test``.

    ``augment``: whether images are augmented; default: those of ``train`` are. ``mnist`` never is.

    ``size``: height and width in pixels; default: as above.
    """

    task_class = ImagesTask


class ImagesVectorEnv(SingleStepVectorEnv):
    """A vector of ``ImagesEnv`` that share one data set."""

    task_class = ImagesTask
