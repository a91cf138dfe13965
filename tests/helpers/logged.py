"""What loggers have written, read back: TensorBoard's events, and the records of W&B's offline files."""

from pathlib import Path

Points = dict[str, list[tuple[int, float]]]
"""Steps and values of each name."""


def scalars_of(folder: Path) -> Points:
    """The scalars of a folder of events, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}
