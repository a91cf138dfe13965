"""Names of the environments of this package, for ``gymnasium.make("ctm_rl.envs:NAME")``."""

import gymnasium as gym

WRAPPED = "ctm_rl/Wrapped-v0"
"""Any environment, guarded; takes ``env_id``, its ``arguments``, ``wrapper_names`` and more."""
PARITY = "ctm_rl/Parity-v0"
"""Cumulative parity in one step; takes ``length``."""
SORTING = "ctm_rl/Sorting-v0"
"""The order of some numbers in one step; takes ``length``."""
IMAGES = "ctm_rl/Images-v0"
"""What a picture shows, in one step; takes ``dataset``, ``path``, ``split``, ``augment`` and ``size``."""
QA_MNIST = "ctm_rl/QAMnist-v0"
"""Sums and differences of handwritten digits in one step; takes ``num_digits``, ``num_operations``, ``size``, ..."""
MAZE = "ctm_rl/Maze-v0"
"""The route through a maze in one step; takes ``size``, ``route_length``, ``generator``, ``folder`` and more."""

ENTRY_POINTS = {
    WRAPPED: "ctm_rl.envs.make:make_wrapped",
    PARITY: "ctm_rl.envs.tasks.parity:ParityEnv",
    SORTING: "ctm_rl.envs.tasks.sorting:SortingEnv",
    IMAGES: "ctm_rl.envs.tasks.images:ImagesEnv",
    QA_MNIST: "ctm_rl.envs.tasks.qa_mnist:QAMnistEnv",
    MAZE: "ctm_rl.envs.tasks.mazes:MazeEnv",
}

VECTOR_ENTRY_POINTS = {
    WRAPPED: "ctm_rl.envs.make:make_wrapped_vector",
    PARITY: "ctm_rl.envs.tasks.parity:ParityVectorEnv",
    SORTING: "ctm_rl.envs.tasks.sorting:SortingVectorEnv",
    IMAGES: "ctm_rl.envs.tasks.images:ImagesVectorEnv",
    QA_MNIST: "ctm_rl.envs.tasks.qa_mnist:QAMnistVectorEnv",
    MAZE: "ctm_rl.envs.tasks.mazes:MazeVectorEnv",
}
"""Those that make many at once by another way than one after the other."""


def register_all() -> None:
    """Registers every environment of this package with Gymnasium; a second call changes nothing."""
    for name, entry_point in ENTRY_POINTS.items():
        if name not in gym.registry:
            # What is wrapped is checked by its own guard, and in every step.
            is_checked = name != WRAPPED
            gym.register(
                name,
                entry_point=entry_point,
                vector_entry_point=VECTOR_ENTRY_POINTS.get(name),
                order_enforce=is_checked,
                disable_env_checker=not is_checked,
            )
