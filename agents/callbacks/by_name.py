"""Makes the callbacks of a run, by name or from objects, and refuses those that no run would call."""

import inspect
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ctm_rl.agents.callbacks.callback import METHODS, Callback
from ctm_rl.errors import UserError
from ctm_rl.named_code import load_code

OPTION = "--callbacks"
_OTHER_LIBRARIES = {
    "on_step": "on_iteration",
    "_on_step": "on_iteration",
    "_on_rollout_end": "on_iteration",
    "_on_rollout_start": "on_iteration",
    "_on_training_start": "on_start",
    "_on_training_end": "on_end",
    "on_train_start": "on_start",
    "on_train_begin": "on_start",
    "on_train_end": "on_end",
    "on_epoch_end": "on_iteration",
    "on_train_result": "on_iteration",
    "on_episode_end": "on_episode",
    "on_save_checkpoint": "on_checkpoint",
}
"""What stable-baselines3, Lightning, Keras and RLlib call our methods."""


def make_callbacks(names: Iterable[str], given: Callback | Sequence[Callback] = ()) -> list[tuple[str, Callback]]:
    """Makes the callbacks of a run, those by name first.

    Args:
        names: ``module:Class`` each, a class without arguments, or a function without any that returns a callback.
        given: objects.

    Returns:
        The callbacks with what messages call them.

    Raises:
        UserError: a name stands for no callback, or a callback has a method that no run calls.
    """
    made: list[tuple[str, object]] = []
    for name in names:
        where = f"{OPTION} {name}"
        make = load_code(name, OPTION)
        try:
            made.append((name, make()))
        except Exception as error:  # whatever a constructor may raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            raise UserError(
                f"{where}: it cannot be made without arguments ({reason}); name a function that returns one."
            ) from error
        _check(where, made[-1][1])
    for callback in [given] if isinstance(given, Callback) else given:
        name = type(callback).__name__
        _check(f"callbacks: {name}", callback)
        made.append((name, callback))
    return [(name, callback) for name, callback in made if isinstance(callback, Callback)]


def _check(where: str, callback: object) -> None:
    """Refuses what is no callback, unknown methods, and methods that cannot be called as a run calls them."""
    if isinstance(callback, type):
        raise UserError(f"{where}: pass an object, {callback.__name__}(), and not the class.")
    if not isinstance(callback, Callback):
        raise UserError(f"{where}: it must be a ctm_rl.agents.Callback, and is a {type(callback).__name__}.")
    for name in dir(type(callback)):
        is_unknown = name.startswith("on_") and name not in METHODS
        if (is_unknown or name in _OTHER_LIBRARIES) and callable(getattr(callback, name)):
            near = _OTHER_LIBRARIES.get(name) or next(iter(get_close_matches(name, METHODS, n=1)), None)
            hint = f"did you mean {near}?" if near else "rename it."
            raise UserError(f"{where}: no run calls {name}; there are {', '.join(METHODS)}: {hint}")
    for name, arguments in METHODS.items():
        signature = inspect.signature(getattr(callback, name))
        try:
            signature.bind(*arguments)
        except TypeError as error:
            wanted = ", ".join(("self", *arguments))
            raise UserError(f"{where}: {name} must take ({wanted}); without self, it takes {signature}.") from error
