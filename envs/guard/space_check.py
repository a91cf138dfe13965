"""Reads observations into the form of their space, or says in words why they have none; fast: every step is read.

What other libraries take without a word is taken here with one warning: other types of numbers whose values fit, axes
of length 1, finite numbers outside of declared bounds, texts of other characters.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

from ctm_rl.envs.guard.describe_fault import BadObservation, short

Read = Callable[[Any], Any]
"""Maps an observation to itself in the form of its space; raises ``BadObservation`` where it has none."""
Note = Callable[[str, str], None]
"""Takes the kind of something that is taken although it is not in the space, and a description of the first of it."""

LARGEST = 1e19
"""The largest number that is taken: policies compute in float32, which overflows where a larger one is squared."""
_SLACK = 1e-5
"""How far rounding may take a number past a bound, relative to 1 + the bound."""


def make_reader(
    space: Space, note: Note, *, has_bounds: bool = False, is_quick: bool = False, path: tuple[Any, ...] = ()
) -> Read:
    """Makes the reader of the observations of a space.

    Numbers must be finite even where the space has no bounds. A type that NumPy casts to the space's own without
    changing its kind, such as float64 to float32, is taken as it is: it is cast when observations are batched.

    Args:
        space: of one observation, or of a batch.
        note: gets what is taken although it is not in the space.
        has_bounds: numbers outside of the bounds of a Box are invalid; otherwise they are noted and taken.
        is_quick: skip what takes long: the characters of texts.
        path: keys and places that lead to this part of an observation.

    Returns:
        The reader.
    """
    where = "".join(f"part {key!r} " for key in path)
    if isinstance(space, Box):
        return _box_reader(space, where, note, has_bounds)
    if isinstance(space, Discrete):
        return _discrete_reader(space, where, note)
    if isinstance(space, (MultiDiscrete, MultiBinary)):
        return _choices_reader(space, where, note)
    if isinstance(space, Text):
        return _text_reader(space, where, note, is_quick)
    if isinstance(space, (Dict, Tuple)):
        parts = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        readers = {
            key: make_reader(part, note, has_bounds=has_bounds, is_quick=is_quick, path=(*path, key))
            for key, part in parts
        }
        return _dict_reader(readers, where, note) if isinstance(space, Dict) else _tuple_reader(readers, where)
    # Spaces of other kinds, such as MiniGrid's of missions, may not contain what their environments return.
    return lambda value: value


def to_array(value: Any) -> np.ndarray:
    """Anything as an array; of objects, where it holds no numbers."""
    if hasattr(value, "detach"):  # a tensor of PyTorch, which this package does not import here
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # lists of unequal lengths, for example
        array = np.empty((), object)
        array[()] = value
        return array


def _box_reader(space: Box, where: str, note: Note, has_bounds: bool) -> Read:
    """Makes the reader of an array of numbers."""
    shape, dtype, size = space.shape, np.dtype(space.dtype), int(np.prod(space.shape))
    low, high = _bounds(space)
    count = np.count_nonzero

    def read(value: Any) -> Any:
        nonlocal low, high
        array = value if isinstance(value, np.ndarray) else to_array(value)
        if array.dtype is not dtype or array.shape != shape:
            array = _in_form(array, shape, dtype, where, note)
        # NaN fails every comparison, and infinity lies beyond every bound.
        if (low is None or count(array >= low) == size) and (high is None or count(array <= high) == size):
            return array
        _check_numbers(array, dtype, where)
        is_outside = np.zeros(shape, bool)
        is_outside |= False if low is None else array < low
        is_outside |= False if high is None else array > high
        bounds = f"[{space.low[is_outside].flat[0]}, {space.high[is_outside].flat[0]}]"
        problem = f"{where}holds {_first(array, is_outside)}, outside of its bounds {bounds}"
        if has_bounds:
            raise BadObservation(problem)
        note(f"{where}bounds", f"{problem}; such numbers are taken (--env.check-bounds makes them faults)")
        low, high = _limits(dtype)
        return array

    return read


def _bounds(space: Box) -> tuple[Any, Any]:
    """Least and greatest valid values, to compare with; ``None``: every value of the type is valid."""
    dtype: Any = np.dtype(space.dtype)
    if np.issubdtype(dtype, np.floating):
        limit = _limits(dtype)[1]
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
        low, high = np.maximum(low, -limit), np.minimum(high, limit)
        low, high = low - _SLACK * (1 + abs(low)), high + _SLACK * (1 + abs(high))
        return np.maximum(low, -limit).astype(dtype), np.minimum(high, limit).astype(dtype)
    if np.issubdtype(dtype, np.bool_):
        return None, None
    least, greatest = np.iinfo(dtype).min, np.iinfo(dtype).max
    low = None if (space.low == least).all() else space.low
    return low, None if (space.high == greatest).all() else space.high


def _limits(dtype: Any) -> tuple[Any, Any]:
    """Least and greatest numbers of a type that are taken whatever the bounds; ``None``: all that it has."""
    if not np.issubdtype(dtype, np.floating):
        return None, None
    limit = min(LARGEST, float(np.finfo(dtype).max))
    return -limit, limit


def _check_numbers(array: np.ndarray, dtype: np.dtype, where: str) -> None:
    """Raises ``BadObservation`` where a number is not finite, or too large."""
    if array.dtype.kind != "f":
        return
    is_finite = np.isfinite(array)
    if not is_finite.all():
        raise BadObservation(f"{where}holds {_first(array, ~is_finite)}")
    limit = _limits(dtype)[1]
    is_large = abs(array) > limit
    if is_large.any():
        raise BadObservation(
            f"{where}holds {_first(array, is_large)}, beyond {limit:g}, where float32 overflows; scale it down"
        )


def _in_form(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, where: str, note: Note) -> np.ndarray:
    """An array whose shape or type differs from the space's: with the space's, or cast later without loss."""
    if array.shape != shape:
        if [size for size in array.shape if size != 1] != [size for size in shape if size != 1]:
            raise BadObservation(f"{where}has shape {array.shape} instead of {shape}")
        note(f"{where}shape", f"{where}has shape {array.shape} instead of {shape}; it is reshaped")
        array = array.reshape(shape)
    is_same_kind = np.can_cast(array.dtype, dtype, "same_kind")
    if array.dtype == dtype or (is_same_kind and dtype.kind not in "iu"):
        return array
    cast = array
    if array.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):  # NaN and infinity, which differ from what they are cast to
            cast = array.astype(dtype)
    if cast is array or not np.array_equal(cast, array):
        example = "" if cast is array else f", such as {_first(array, cast != array)}"
        raise BadObservation(f"{where}holds {array.dtype} instead of {dtype}{example}")
    if not is_same_kind:
        note(f"{where}type", f"{where}holds {array.dtype} instead of {dtype}; it is converted")
    return cast


def _discrete_reader(space: Discrete, where: str, note: Note) -> Read:
    """Makes the reader of one whole number."""
    start, stop = int(space.start), int(space.start) + int(space.n)

    def read(value: Any) -> Any:
        number = value if isinstance(value, (int, np.integer)) else _whole(value)
        if number is None or not start <= number < stop:
            raise BadObservation(f"{where}is {short(value)}, outside of {space}")
        if number is not value and (np.ndim(value) or to_array(value).dtype.kind not in "iu"):
            note(f"{where}type", f"{where}is {short(value)} instead of a whole number; it is converted")
        return number

    return read


def _whole(value: Any) -> int | None:
    """A whole number of another type: an array of one, a float, NumPy's bool; ``None``: it is none."""
    array = to_array(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        return None
    number = array.item()
    return int(number) if np.isfinite(number) and number == int(number) else None


def _choices_reader(space: MultiDiscrete | MultiBinary, where: str, note: Note) -> Read:
    """Makes the reader of several whole numbers."""
    shape, dtype, size = space.shape, np.dtype(space.dtype), int(np.prod(space.shape))
    low: Any = space.start if isinstance(space, MultiDiscrete) else 0
    high: Any = low + (space.nvec - 1 if isinstance(space, MultiDiscrete) else 1)
    count = np.count_nonzero

    def read(value: Any) -> Any:
        array = value if isinstance(value, np.ndarray) else to_array(value)
        if array.dtype is not dtype or array.shape != shape:
            array = _in_form(array, shape, dtype, where, note)
        if count(array >= low) != size or count(array <= high) != size:
            raise BadObservation(f"{where}is {short(value)}, outside of {space}")
        return array

    return read


def _text_reader(space: Text, where: str, note: Note, is_quick: bool) -> Read:
    """Makes the reader of a text."""

    def read(value: Any) -> Any:
        nonlocal is_quick
        if not isinstance(value, str):
            raise BadObservation(f"{where}is {short(value)} instead of a text")
        if not is_quick and not space.contains(value):
            is_quick = True  # other texts are taken too
            limits = f"{space.min_length} to {space.max_length} of {len(space.character_set)} characters"
            note(f"{where}text", f"{where}is {short(value)}, outside of its Text of {limits}; it is taken")
        return value

    return read


def _dict_reader(readers: dict[Any, Read], where: str, note: Note) -> Read:
    """Makes the reader of a dictionary."""
    names, items, size = sorted(map(str, readers)), tuple(readers.items()), len(readers)

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise BadObservation(f"{where}has parts {short(value)} instead of {names}")
        changed = value
        for key, reader in items:
            if key not in value:
                raise BadObservation(f"{where}has parts {sorted(map(str, value))} instead of {names}")
            part = value[key]
            found = reader(part)
            if found is not part:
                if changed is value:
                    changed = dict(value)
                changed[key] = found
        if len(value) > size:
            others = sorted(str(key) for key in value if key not in readers)
            note(f"{where}parts", f"{where}has parts {others} that its space lacks; they are left out")
        return changed

    return read


def _tuple_reader(readers: dict[Any, Read], where: str) -> Read:
    """Makes the reader of a tuple."""
    parts, size = tuple(readers.values()), len(readers)

    def read(value: Any) -> Any:
        if not isinstance(value, (tuple, list)) or len(value) != size:
            raise BadObservation(f"{where}is {short(value)} instead of a tuple of {size}")
        return tuple(reader(part) for reader, part in zip(parts, value, strict=True))

    return read


def _first(array: np.ndarray, is_wrong: np.ndarray) -> str:
    """The first wrong number and its index."""
    index = tuple(int(place) for place in np.argwhere(is_wrong)[0])
    where = f" at {list(index)}" if index else ""
    return f"{'NaN' if np.isnan(array[index]) else array[index]}{where}"
