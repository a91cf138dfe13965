"""Questions about handwritten digits as a single-step task: sums and differences of digits chosen by index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from ctm_rl.envs.data.images import ArrayImages, check_num_images, resize_all
from ctm_rl.envs.data.open_dataset import open_images
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv

PLUS, MINUS, NOTHING = -1, -2, -3
"""Elements of a question that are not the index of a digit."""
MODULUS = 10


class QAMnistTask(SingleStepTask):
    """Digits and questions about them; see ``QAMnistEnv``."""

    def __init__(
        self,
        num_digits: Sequence[int] = (1, 4),
        num_operations: Sequence[int] = (1, 4),
        size: int = 32,
        split: str = "train",
        path: str | Path | None = None,
        shift: int = 0,
    ) -> None:
        self.num_digits = _check_range("num_digits", num_digits)
        self.num_operations = _check_range("num_operations", num_operations, lowest=0)
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}.")
        images = open_images("mnist", path, split)
        assert isinstance(images, ArrayImages)
        if shift < 0:
            raise ValueError(f"shift must be at least 0, got {shift}.")
        check_num_images(len(images), images.source, (size + 2 * shift, size + 2 * shift))
        self._bank = np.ascontiguousarray(resize_all(images.array, size))
        self._shift = shift
        # A view of every digit at every shift, [images, 2 shift + 1, 2 shift + 1, 1, size, size].
        padded = np.pad(self._bank, [(0, 0), (shift, shift), (shift, shift), (0, 0)])
        self._moved = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
        self._values = images.labels
        least, most = self.num_digits
        super().__init__(
            Dict(
                digits=Box(0, 255, (most, size, size, 1), np.uint8),
                num_digits=Discrete(most - least + 1, start=least),
                question=Box(NOTHING, most - 1, (2 * self.num_operations[1] + 1,), np.int64),
            ),
            Discrete(MODULUS),
        )

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws digits and questions, of equally many digits and operations in all rows, and the answers [N]."""
        num_digits = int(rng.integers(self.num_digits[0], self.num_digits[1], endpoint=True))
        num_operations = int(rng.integers(self.num_operations[0], self.num_operations[1], endpoint=True))
        digit_indices = rng.integers(len(self._bank), size=(num_samples, num_digits))
        indices = rng.integers(num_digits, size=(num_samples, num_operations + 1))
        is_minus = rng.integers(2, size=(num_samples, num_operations), dtype=np.int8).astype(bool)

        question = np.full((num_samples, 2 * self.num_operations[1] + 1), NOTHING, np.int64)
        question[:, 0 : 2 * num_operations + 1 : 2] = indices
        question[:, 1 : 2 * num_operations : 2] = np.where(is_minus, MINUS, PLUS)
        inputs = {
            "digits": self._digits(digit_indices, rng),
            "num_digits": np.full(num_samples, num_digits, np.int64),
            "question": question,
        }

        terms = np.take_along_axis(self._values[digit_indices], indices, 1)  # [N, operations + 1]
        # Reducing modulo 10 once gives the same result as reducing at each step.
        signs = np.where(is_minus, -1, 1)
        return Samples(inputs, (terms[:, 0] + (signs * terms[:, 1:]).sum(1)) % MODULUS)

    def _digits(self, digit_indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The images of some digits [N, digits], padded with black ones, [N, most digits, size, size, 1]."""
        if self._shift:
            down, right = rng.integers(2 * self._shift, size=(2, *digit_indices.shape), endpoint=True)
            images = np.moveaxis(self._moved[digit_indices, down, right], 2, -1)
        else:
            images = self._bank[digit_indices]
        if digit_indices.shape[1] == self.num_digits[1]:
            return np.ascontiguousarray(images)
        digits = np.zeros((len(digit_indices), self.num_digits[1], *self._bank.shape[1:]), np.uint8)
        digits[:, : digit_indices.shape[1]] = images
        return digits


class QAMnistEnv(SingleStepEnv):
    """Computes with handwritten digits, modulo 10. Source: arXiv:2505.05522.

    ## Observation space
    ``Dict(digits=Box(0, 255, (most digits, size, size, 1), uint8), num_digits=Discrete, question=Box(-3,
    most digits - 1, (2 * most operations + 1,), int64))``: the digits one after the other, padded with black images;
    how many there are; and the question: index of a digit, operator, index, operator and so on, indices counted from 0.
    -1 is plus, -2 is minus, -3 pads the end. Each element is given once; the model decides for how many ticks it sees
    it.

    ## Action space
    ``Discrete(10)``: the result, computed from left to right and reduced modulo 10 at each step.

    ## Rewards
    1 for the correct result, else 0.

    ## Starting state
    The numbers of digits and of operations are drawn first, once for all samples of a batch, as published; then images,
    indices and operators, all uniformly. ``train`` and ``test`` share no image.

    ## Episode end
    After one step.

    ## Arguments
    ``num_digits``: least and most, (1, 4) by default.

    ``num_operations``: least and most, (1, 4) by default; with 0, the question is an index, and its digit the
    answer.

    ``size``: height and width of a digit, to which it is resized bilinearly; 32 by default.

    ``split``: of the images, ``train`` (default) or ``test``.

    ``path``: where MNIST is, as for ``ctm_rl/Images-v0``; default: the digits shipped in this package.

    ``shift``: by how many pixels at most each digit is moved up or down and left or right, at random; 0 by default.
    """

    task_class = QAMnistTask


class QAMnistVectorEnv(SingleStepVectorEnv):
    """A vector of ``QAMnistEnv`` whose questions are made in one batch, all of the same length."""

    task_class = QAMnistTask


def _check_range(name: str, value: Sequence[int], lowest: int = 1) -> tuple[int, int]:
    """Returns least and most, checked to be in order and not below the lowest."""
    if not isinstance(value, Sequence) or len(value) != 2 or not lowest <= value[0] <= value[1]:
        raise ValueError(f"{name} must be the least and the most, each at least {lowest}, got {value}.")
    return value[0], value[1]
