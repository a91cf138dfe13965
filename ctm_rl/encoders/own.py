"""An encoder of the user's: a ``torch.nn.Module`` by name, with the numbers of the observation that it reads.

The class is called with our description of what it reads and with ``model.feature_dim``; it has ``out_dim``, the number
of features, and ``forward``. This package never imports Gymnasium for it, and neither need the class.
"""

import inspect
import reprlib
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.config import MAX_NUMBERS, OWN_ENCODERS
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.errors import CodeError
from ctm_rl.named_code import declared_code, load_code
from ctm_rl.spaces.observations import Layout, Part

_OPTION = "model.encoder"
_WHOLE = ("categories", "grid", "text")
"""Parts that are read as whole numbers: what an embedding takes."""


class OwnEncoder(nn.Module):
    """Hands a part of a packed observation, or all of its parts by name, to a module of the user's.

    Numbers of vectors and images are floats, divided by the part's ``scale``; categories, grids and texts are whole
    numbers. With several parts the module gets a dictionary of tensors by ``Part.name``.

    Args:
        name: ``module:Class``, or the name of an entry point.
        space: what is read: one part, or the layout of several.
        feature_dim: F, handed on; the class may have another ``out_dim``.
        is_normalised: of a vector, whether to subtract the running mean and divide by the running deviation.
        has_places: whether the module returns a map [N, out_dim, places...], which a model attends to, and not
            features [N, out_dim].
    """

    def __init__(
        self,
        name: str,
        space: Part | Layout,
        feature_dim: int,
        *,
        is_normalised: bool = False,
        has_places: bool | None = False,
    ) -> None:
        super().__init__()
        self._name = name
        self._parts = space.parts if isinstance(space, Layout) else (space,)
        self._is_one = isinstance(space, Part)
        is_vector = self._is_one and self._parts[0].encoder == "control"
        self.normaliser = RunningNormaliser(self._parts[0].size) if is_normalised and is_vector else None
        self.module = _build(name, space, feature_dim)
        self.out_dim = int(self.module.out_dim)  # pyright: ignore[reportArgumentType]
        self._check_output(has_places)

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Tensor:
        """Maps packed observations [N, ...] to what the module returns for them."""
        dtype = self._dtype()
        if self._is_one:
            part = self._parts[0]
            if self.normaliser is None:
                return self.module(_read(part, observations, dtype))
            return self.module(self.normaliser(self.numbers(observations)).unflatten(1, part.packed_shape))
        pieces: Any = observations.split([part.size for part in self._parts], -1)
        named = zip(self._parts, pieces, strict=True)
        return self.module(
            {part.name: _read(part, piece.unflatten(-1, part.packed_shape), dtype) for part, piece in named}
        )

    def numbers(self, observations: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N numbers"]:
        """Observations as flat vectors, scaled but not normalised."""
        return _read(self._parts[0], observations, self._dtype()).flatten(1)

    def output_shape(self) -> torch.Size:
        """Shape of what the module returns for one observation of zeros; leaves parameters and generators alone."""
        part = self._parts[0]
        shape = part.packed_shape if self._is_one else (sum(part.size for part in self._parts),)
        is_training = self.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                found: Any = self.eval()(torch.zeros(2, *shape))
            except Exception as error:  # a module of the user's may raise anything
                kind = type(error).__name__
                raise CodeError(
                    f"{_OPTION} {self._name} cannot read observations of shape {shape}: {kind}: {error}"
                ) from error
            finally:
                self.train(is_training)
        if not isinstance(found, Tensor) or found.shape[:1] != (2,):
            shown = tuple(found.shape) if isinstance(found, Tensor) else reprlib.repr(found)
            raise CodeError(
                f"{_OPTION} {self._name} must return a tensor with a row for each of 2 inputs, got {shown}."
            )
        return found.shape[1:]

    def _check_output(self, has_places: bool | None) -> None:
        """Refuses a module that returns another shape than it says; without memory for weights, nothing is checked."""
        is_large = sum(part.size for part in self._parts) > MAX_NUMBERS  # as a file of somebody else's may say
        if is_large or torch.get_default_device().type == "meta":
            return
        shape = tuple(self.output_shape())
        fits = len(shape) > 1 if has_places else has_places is None or len(shape) == 1
        if not fits or shape[:1] != (self.out_dim,):
            wanted = f"[N, {self.out_dim}{', places...' if has_places else ''}]"
            found = ", ".join(map(str, ("N", *shape)))
            raise CodeError(
                f"{_OPTION} {self._name} has out_dim {self.out_dim} and must return {wanted}, got [{found}]."
            )

    def _dtype(self) -> torch.dtype:
        """The number format of the module's parameters."""
        return next((one.dtype for one in self.parameters() if one.is_floating_point()), torch.get_default_dtype())


def _read(part: Part, piece: Tensor, dtype: torch.dtype) -> Tensor:
    """A part of packed observations as the module takes it."""
    if part.encoder in _WHOLE:
        return piece.long()
    numbers = piece.to(dtype)
    return numbers if part.scale == 1.0 else numbers / part.scale


def _build(name: str, space: Part | Layout, feature_dim: int) -> nn.Module:
    """Imports the class and makes the module.

    Raises:
        CodeError: there is no such class, it cannot be made, or has no ``out_dim``.
    """
    found: Any = load_code(name, _OPTION, declared_code(OWN_ENCODERS))
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise CodeError(f"{_OPTION} {name} must be a class of torch.nn.Module, and is {reprlib.repr(found)}.")
    try:
        module = found(space, feature_dim)
    except Exception as error:  # a class of the user's may raise anything
        call = f"{found.__name__}(space, feature_dim)"
        raise CodeError(f"{_OPTION} {name} is made as {call}: {type(error).__name__}: {error}") from error
    out_dim = getattr(module, "out_dim", None)
    if not isinstance(out_dim, int) or out_dim < 1:
        raise CodeError(
            f"{_OPTION} {name} must set self.out_dim, the number of features it returns, to an integer of at least 1; "
            f"it is {reprlib.repr(out_dim)}."
        )
    return module
