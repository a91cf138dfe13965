"""Accuracy by position in a sequence, by length of a route, and by size of a question."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.config import check_at_least
from ctm_rl.metrics.answers import at_tick, most_certain_tick, right_by_tick
from ctm_rl.metrics.sums import Sums, require_samples, share, shares

WAIT = 4
"""The class that pads a route after its last move."""


class PositionScores:
    """Parity: the share of samples that are right at each position. Source: arXiv:2505.05522, parity experiments."""

    def __init__(self) -> None:
        self._sums = Sums()

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G must be the same in all batches.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
        """
        is_right = right_by_tick(predictions, targets)
        self._sums.add(
            num_samples=torch.tensor(len(targets)),
            chosen=at_tick(is_right, most_certain_tick(certainties)).sum(0),
            last=is_right[..., -1].sum(0),
        )

    def summary(self) -> dict[str, list[float]]:
        """All shares so far.

        Returns:
            G numbers each: ``accuracy_by_position`` at the most certain tick, ``accuracy_by_position_last`` at the
            last.

        Raises:
            ValueError: no sample was added.
        """
        num_samples = self._sums.count()
        return {
            "accuracy_by_position": shares(self._sums["chosen"], num_samples),
            "accuracy_by_position_last": shares(self._sums["last"], num_samples),
        }


class RouteScores:
    """Mazes: how much of a route is right, by its length, read at the most certain tick.

    The length of a route is the number of its steps without the waits that pad it. Source of the routes and of
    counting solved mazes: arXiv:2505.05522, maze experiments. The published code counts waits among the steps; here
    they are left out, as most steps of an easy maze are waits.
    """

    def __init__(self) -> None:
        self._sums = Sums()

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G must be the same in all batches.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: moves, 4 for a wait, [B, G].
        """
        is_right = right_by_tick(at_tick(predictions, most_certain_tick(certainties))[..., None], targets).squeeze(2)
        is_move = targets != WAIT
        length = is_move.sum(1)
        parts = {
            "num_samples": torch.ones_like(length),
            "steps": (is_right & is_move).sum(1),
            "route": (is_right | ~is_move).all(1),
            "whole": is_right.all(1),
        }
        zeros = length.new_zeros(targets.shape[1] + 1)  # by length, from 0 to G
        self._sums.add(**{name: zeros.index_add(0, length, part.long()) for name, part in parts.items()})

    def summary(self, bin_size: int = 10) -> dict[str, Any]:
        """All shares so far, and by length.

        Args:
            bin_size: number of lengths in a bin: 1 to ``bin_size`` in the first (with routes of no steps, if there are
                any), and so on.

        Returns:
            ``num_samples``; ``steps``, the share of right steps among all steps except waits; ``route``, the share of
            samples in which every step except waits is right; ``whole``, the share of samples right in every element,
            waits included, as in ``AnswerScores``; and ``by_length``, the same for each bin with its first and
            last length, ``low`` and ``high``. Where there is nothing to count, a share is None.

        Raises:
            ValueError: no sample was added, or ``bin_size`` is below 1.
        """
        check_at_least("bin_size", bin_size, 1)
        sums = {name: self._sums[name] for name in ("num_samples", "steps", "route", "whole")}
        require_samples(int(sums["num_samples"].sum()))
        lengths = torch.arange(len(sums["steps"]))
        sums["num_steps"] = lengths * sums["num_samples"]
        num_bins = max(-(-int(lengths[-1]) // bin_size), 1)
        bins = (lengths - 1).clamp(min=0) // bin_size
        binned = {name: part.new_zeros(num_bins).index_add(0, bins, part) for name, part in sums.items()}
        by_length = [
            {
                "low": index * bin_size + 1,
                "high": min((index + 1) * bin_size, int(lengths[-1])),
                **self._shares({name: int(part[index]) for name, part in binned.items()}),
            }
            for index in range(num_bins)
        ]
        return {**self._shares({name: int(part.sum()) for name, part in sums.items()}), "by_length": by_length}

    @staticmethod
    def _shares(counts: dict[str, int]) -> dict[str, float | None]:
        """The summary of all routes, or of those of a bin."""
        return {
            "num_samples": counts["num_samples"],
            "steps": share(counts["steps"], counts["num_steps"]),
            "route": share(counts["route"], counts["num_samples"]),
            "whole": share(counts["whole"], counts["num_samples"]),
        }


class QuestionScores:
    """Questions about digits: the share of right answers for each number of digits and operations.

    Source of the table: arXiv:2505.05522, Q&A-MNIST experiments. Pass the ticks that answer; their number may differ
    from batch to batch.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], list[int]] = {}

    def add(
        self,
        predictions: Float[Tensor, "B G C K"],
        certainties: Float[Tensor, "B K"],
        targets: Int[Tensor, "B G"],
        num_digits: Int[Tensor, " B"],
        num_operations: Int[Tensor, " B"],
    ) -> None:
        """Adds one batch.

        Args:
            predictions: logits of the ticks that answer, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
            num_digits: number of digits of each question, [B].
            num_operations: number of operations of each question, [B].
        """
        is_right = right_by_tick(predictions, targets).all(1)  # [B, K]
        parts = torch.stack(
            [torch.ones_like(num_digits), at_tick(is_right, most_certain_tick(certainties)), is_right[:, -1]], 1
        )
        sizes, row = torch.stack([num_digits, num_operations], 1).unique(dim=0, return_inverse=True)
        counts = parts.new_zeros(len(sizes), 3).index_add(0, row, parts)
        for (digits, operations), batch in zip(sizes.tolist(), counts.tolist(), strict=True):
            known = self._counts.get((digits, operations), [0, 0, 0])
            self._counts[digits, operations] = [old + new for old, new in zip(known, batch, strict=True)]

    def summary(self) -> list[dict[str, float]]:
        """The table so far.

        Returns:
            For each size that occurred, sorted by digits, then by operations: ``num_digits``,
            ``num_operations``, ``num_samples``, ``accuracy`` at the most certain tick and ``accuracy_last`` at the
            last.

        Raises:
            ValueError: no sample was added.
        """
        require_samples(len(self._counts))
        return [
            {
                "num_digits": digits,
                "num_operations": operations,
                "num_samples": num_samples,
                "accuracy": chosen / num_samples,
                "accuracy_last": last / num_samples,
            }
            for (digits, operations), (num_samples, chosen, last) in sorted(self._counts.items())
        ]
