"""Classification of a user's own data as a single-step task."""

from collections.abc import Sequence

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from ctm_rl.envs.data.crops import crop_and_flip
from ctm_rl.envs.data.folder import check_split
from ctm_rl.envs.data.own_data import HELD_OUT_SHARE, Label, read_own
from ctm_rl.envs.data.own_images import ImageFiles
from ctm_rl.envs.data.own_sources import OPTION
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv
from ctm_rl.errors import UserError, printable

_MAX_AUGMENTED_SHIFT = 4


class DataTask(SingleStepTask):
    """A user's own samples with their classes; see ``DataEnv``."""

    def __init__(
        self,
        path: str,
        split: str = "train",
        classes: Sequence[Label] | None = None,
        shape: Sequence[int] | None = None,
        size: int | None = None,
        held_out: float = HELD_OUT_SHARE,
        augment: bool = False,
    ) -> None:
        check_split(split)
        try:
            self.data = data = read_own(path, split, classes=classes, shape=shape, size=size, held_out=held_out)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{OPTION} {printable(path.rpartition('/')[2] or path)}: {error}") from error
        is_image = len(data.shape) == 3
        if augment and not is_image:
            raise ValueError("augment shifts and flips images; these are vectors: leave it out.")
        self._is_augmented = augment and split == "train"
        bounds = (0, 255, data.shape, np.uint8) if is_image else (*self._range(), data.shape, np.float32)
        num_classes = len(data.classes)
        groups = data.labels.shape[1:]
        answers = MultiDiscrete([num_classes] * groups[0]) if groups else Discrete(num_classes)
        super().__init__(Box(*bounds), answers)

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(self.data.labels)

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws inputs [N, ...], uniformly and independently, and their classes [N] or [N, G]."""
        return self.take(rng, rng.integers(self.num_samples, size=num_samples))

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Returns the inputs at some indices [N, ...], with their classes; ``rng`` augments them."""
        inputs = self.data.inputs[indices]
        if isinstance(self.data.inputs, ImageFiles):
            indices = self.data.inputs.rows_used(indices)
        if self._is_augmented:
            inputs = crop_and_flip(inputs, rng, _MAX_AUGMENTED_SHIFT)
        return Samples(inputs, self.data.labels[indices])

    def _range(self) -> tuple[float, float]:
        """The bounds of vectors: those of symbols, or none."""
        assert isinstance(self.data.inputs, np.ndarray)
        return (-1.0, 1.0) if is_symbols(self.data.inputs) else (-np.inf, np.inf)


def is_symbols(inputs: np.ndarray) -> bool:
    """Whether inputs [N, S] are sequences of two symbols, -1 and 1, of at least two places."""
    return inputs.ndim == 2 and inputs.shape[1] > 1 and bool(np.isin(inputs, (-1, 1)).all())


class DataEnv(SingleStepEnv):
    """Classifies a user's own data: images, vectors, or sequences of -1 and 1.

    ## Observation space
    ``Box(0, 255, (height, width, channels), uint8)`` for images, ``Box(-inf, inf, (D,), float32)`` for vectors,
    ``Box(-1, 1, (S,), float32)`` for sequences.

    ## Action space
    ``Discrete(number of classes)``; ``MultiDiscrete`` where a sample has several labels.

    ## Rewards
    1 for the right class, else 0; of several the share of right ones.

    ## Starting state
    A sample, drawn uniformly, or ``reset(options={"index": i})``.

    ## Episode end
    After one step.

    ## Arguments
    ``path``: a folder with a folder of images for each class, also below ``train`` and ``test`` or ``val``; parquet
    files of images, or of columns of numbers, with a column of classes (``label``, ``target``, ``y``, ...); an npz file
    with ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``; or ``module:function``, which gives
    such arrays, a dictionary of them, or a torch ``Dataset`` or two. Images in arrays are bytes, or floats from 0 to 1
    or -1 to 1. Labels are text or whole numbers.

    ``split``: ``train`` (default) or ``test``, the samples held out. ``held_out``: the share of each class that is
    split off where the data set has no such split, always the same samples; 0.2.

    ``classes``: the labels in the order of their numbers; default: sorted. ``shape``, ``size``: to which images are
    resized; default: as they are, at most 64 pixels, and the same square for images of several sizes. ``augment``:
    whether images to learn from are shifted by up to 4 pixels and flipped; default: no.
    """

    task_class = DataTask


class DataVectorEnv(SingleStepVectorEnv):
    """A vector of ``DataEnv`` that share one data set."""

    task_class = DataTask
