"""Ids of the environments of this package, for ``gymnasium.make("ctm_rl.envs:NAME")``."""

import gymnasium as gym

WRAPPED = "ctm_rl/Wrapped-v0"
"""Any environment, guarded; takes ``env_id``, its ``arguments``, ``wrapper_names`` and more."""

NAMED_TASK = "ctm_rl/Task-v0"
"""A task, or an environment of one step, of a class that is not registered; takes ``task_name``, ``arguments``."""

_MAKE, _TASKS = "ctm_rl.envs.make:make_wrapped", "ctm_rl.envs.tasks."
ENTRY_POINTS = {
    WRAPPED: (_MAKE, f"{_MAKE}_vector"),
    NAMED_TASK: (f"{_TASKS}by_name:make_named", f"{_TASKS}by_name:make_named_vector"),
    # Cumulative parity in one step; takes length.
    "ctm_rl/Parity-v0": (f"{_TASKS}parity:ParityEnv", f"{_TASKS}parity:ParityVectorEnv"),
    # The order of some numbers in one step; takes length.
    "ctm_rl/Sorting-v0": (f"{_TASKS}sorting:SortingEnv", f"{_TASKS}sorting:SortingVectorEnv"),
    # The class of an image in one step; takes dataset, path, split, augment and size.
    "ctm_rl/Images-v0": (f"{_TASKS}images:ImagesEnv", f"{_TASKS}images:ImagesVectorEnv"),
    # The class of a sample of the user's own data in one step; takes path, split, held_out, size, augment and more.
    "ctm_rl/Data-v0": (f"{_TASKS}own_data:DataEnv", f"{_TASKS}own_data:DataVectorEnv"),
    # Sums and differences of handwritten digits in one step; takes num_digits, num_operations, size and more.
    "ctm_rl/QAMnist-v0": (f"{_TASKS}qa_mnist:QAMnistEnv", f"{_TASKS}qa_mnist:QAMnistVectorEnv"),
    # The route through a maze in one step; takes size, route_length, generator, folder and more.
    "ctm_rl/Maze-v0": (f"{_TASKS}mazes:MazeEnv", f"{_TASKS}mazes:MazeVectorEnv"),
}
"""What makes one environment, and what makes many at once, by id."""


def register_all() -> None:
    """Registers every environment of this package with Gymnasium; a second call changes nothing."""
    for name, (entry_point, vector_entry_point) in ENTRY_POINTS.items():
        if name not in gym.registry:
            # A wrapped environment is checked by its own guard, in every step.
            is_checked = name != WRAPPED
            gym.register(
                name,
                entry_point=entry_point,
                vector_entry_point=vector_entry_point,
                order_enforce=is_checked,
                disable_env_checker=not is_checked,
            )
