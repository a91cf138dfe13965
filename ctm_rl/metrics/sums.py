"""Sums over samples that arrive batch by batch, so that an evaluation holds no more than one batch of answers."""

import torch
from torch import Tensor


class Sums:
    """Tensors by name, each the sum of what was added under it: integers exactly, others in float64."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, **parts: Tensor) -> None:
        """Adds to every sum; if a part has another shape than before, nothing is added.

        Args:
            parts: tensors to add, by name; flags count as 0 and 1.

        Raises:
            ValueError: a shape differs from that of an earlier batch.
        """
        wide = {
            name: part.detach().cpu().to(torch.float64 if part.is_floating_point() else torch.int64)
            for name, part in parts.items()
        }
        for name, part in wide.items():
            known = self._sums.get(name)
            if known is not None and known.shape != part.shape:
                raise ValueError(
                    "every batch must have the same number of elements and ticks: "
                    f"{name} was {list(known.shape)}, now {list(part.shape)}."
                )
        for name, part in wide.items():
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def __getitem__(self, name: str) -> Tensor:
        """The sum called ``name``.

        Raises:
            ValueError: nothing was added yet.
        """
        require_samples(name in self._sums)
        return self._sums[name]

    def count(self, name: str = "num_samples") -> int:
        """The sum called ``name`` as a number to divide by.

        Raises:
            ValueError: it is 0, or nothing was added yet.
        """
        return require_samples(int(self[name]))


def require_samples(count: int) -> int:
    """Returns ``count``, or raises ValueError if it is 0: there is nothing to summarise."""
    if count < 1:
        raise ValueError("a summary needs at least one sample, none was added.")
    return count


def share(part: Tensor | float, whole: Tensor | float) -> float | None:
    """``part / whole`` as a plain number; None if ``whole`` is 0."""
    return float(part) / float(whole) if float(whole) else None


def shares(parts: Tensor, wholes: Tensor | int) -> list[float]:
    """``parts / wholes`` as plain numbers.

    Args:
        parts: [S].
        wholes: [S] or one number, none of them 0.

    Returns:
        S numbers.
    """
    return (parts.double() / wholes).tolist()
