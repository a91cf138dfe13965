"""What a run is: one frozen, checked value, readable from a command line and from JSON without loading torch or ray."""

import dataclasses
import difflib
import re
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ctm_rl.agents.checks import check_number, check_rows
from ctm_rl.config import PolicyConfig

Algorithm = Literal["ppo", "stock-ppo"]

MAX_SEED = 2**31 - 1
MAX_STEPS = 2**53
_ADDRESS = re.compile(r"auto|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvConfig:
    """The environment an agent acts on."""

    id: str
    """Gymnasium's name of the environment, as CartPole-v1; module:Name-v0 imports the module first."""
    hide_velocities: bool = False
    """Classic control only: leave the velocities out of the observation, so that the policy has to remember."""
    use_image_only: bool = False
    """MiniGrid only: observe the image alone, without direction and mission."""
    max_episode_steps: int | None = None
    """Truncate episodes after this many steps; None: as registered."""
    stagger_episodes: bool = False
    """In training, cut every environment's first episode off at a random step: where episodes run up to their time
    limit, environments would otherwise all be at the same moment of theirs, all the time."""
    vectorization: Literal["auto", "sync", "async"] = "auto"
    """How environments are stepped together: by their own vector class if there is one (auto), in turn, in parallel."""

    def __post_init__(self) -> None:
        """Refuses what names no environment."""
        if not self.id.strip():
            raise ValueError("env.id must name an environment, as CartPole-v1; it is empty.")
        if self.hide_velocities and self.use_image_only:
            raise ValueError("env.hide_velocities and env.use_image_only exclude each other: a grid has no velocities.")
        if self.max_episode_steps is not None:
            check_number("env.max_episode_steps", self.max_episode_steps, at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOSettings:
    """How the agent learns: proximal policy optimisation."""

    lr: float = 1e-3
    """Adam's learning rate (at the start, when annealed)."""
    is_lr_annealed: bool = False
    """Lower the learning rate linearly to 0 over the budget of env steps."""
    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    reward_scale: float | None = None
    """Rewards are learned from times this, and reported raw; None: 1 - gamma, so that values stay small, or 1 if they
    are normalised."""
    normalize_rewards: bool = False
    """Divide rewards by the running deviation of the discounted return, in each process that plays."""
    clip: float = 0.2
    """How far the probability ratio may move from 1."""
    value_clip: float | None = None
    """How far a value may move from the rollout's before it gets no credit for moving; None: anywhere."""
    target_kl: float | None = None
    """End an iteration's passes when the policy has diverged this far from the one that acted; None: never."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy, which is maximised (at the start, when annealed)."""
    entropy_coefficient_final: float | None = None
    """Move the weight of the entropy linearly to this over the budget of env steps; None: keep it."""
    value_coefficient: float = 0.5
    """Weight of the value loss, half the squared error."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon; RLlib's own learner has its own."""
    num_epochs: int = 4
    """Passes over each iteration's samples."""
    num_minibatches: int = 4
    """Gradient steps in each of these passes."""
    num_rollout_steps: int = 64
    """T: steps of every environment in one iteration."""

    def __post_init__(self) -> None:
        """Refuses settings that cannot learn."""
        check_number("ppo.lr", self.lr, above=0)
        check_number("ppo.gamma", self.gamma, at_least=0, at_most=1)
        check_number("ppo.gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        if self.reward_scale is not None:
            check_number("ppo.reward_scale", self.reward_scale, above=0)
        check_number("ppo.clip", self.clip, above=0)
        check_number("ppo.adam_epsilon", self.adam_epsilon, above=0)
        for name in ("value_clip", "target_kl"):
            if getattr(self, name) is not None:
                check_number(f"ppo.{name}", getattr(self, name), above=0)
        if self.entropy_coefficient_final is not None:
            check_number("ppo.entropy_coefficient_final", self.entropy_coefficient_final, at_least=0)
        check_number("ppo.entropy_coefficient", self.entropy_coefficient, at_least=0)
        check_number("ppo.value_coefficient", self.value_coefficient, at_least=0)
        check_number("ppo.max_grad_norm", self.max_grad_norm, above=0)
        for name in ("num_epochs", "num_minibatches", "num_rollout_steps"):
            check_number(f"ppo.{name}", getattr(self, name), at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """When a run is finished: whichever comes first. Both count over all resumes."""

    env_steps: int = 1_000_000
    """Steps taken in all environments together."""
    minutes: float | None = None
    """Wall time of training; None: no limit."""

    def __post_init__(self) -> None:
        """Refuses an empty budget."""
        check_number("budget.env_steps", self.env_steps, at_least=1, at_most=MAX_STEPS)
        if self.minutes is not None:
            check_number("budget.minutes", self.minutes, above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A whole run: what is acted on, by which model, how it learns, for how long and on which machines."""

    name: str
    """Name of the experiment; the default run directory begins with it."""
    env: EnvConfig
    """The environment."""
    model: PolicyConfig = field(default_factory=PolicyConfig)
    """The policy."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """How it learns."""
    algorithm: Algorithm = "ppo"
    """Our recurrent PPO on columns of whole environments, or RLlib's own learner and environment runner."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """How long it learns."""
    seed: int = 1
    """Seed of everything random in the run."""
    run_dir: str | None = None
    """Where the run is written, new or empty; None: runs/<experiment>-<UTC time>."""
    num_env_runners: int = 0
    """Processes that play the environments; 0: the training process plays them itself."""
    num_envs_per_env_runner: int = 32
    """Environments in each of these processes."""
    num_cpus_per_env_runner: float = 1.0
    """CPU cores Ray sets aside for each of these processes."""
    num_learners: int = 0
    """Processes that learn; 0: the training process learns itself."""
    num_threads: int = 1
    """CPU threads of the training process; more than 1 only pays for large models on an idle machine."""
    num_gpus_per_learner: float = 0.0
    """GPUs of each learner, at most 1; 0: learns on the CPU."""
    address: str | None = None
    """An existing Ray cluster: auto or host:port; None: a Ray of its own on this machine."""
    checkpoint_minutes: float = 5.0
    """A checkpoint is written at least this often, and at every stop."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run, as far as that shows without looking at the machine."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be letters, digits, dots, dashes and underscores, got {self.name!r}.")
        check_number("seed", self.seed, at_least=0, at_most=MAX_SEED)
        if self.run_dir is not None and not self.run_dir.strip():
            raise ValueError("run_dir must name a directory; it is empty.")
        check_number("num_env_runners", self.num_env_runners, at_least=0)
        check_number("num_envs_per_env_runner", self.num_envs_per_env_runner, at_least=1)
        check_number("num_cpus_per_env_runner", self.num_cpus_per_env_runner, at_least=0)
        check_number("num_learners", self.num_learners, at_least=0)
        check_number("num_threads", self.num_threads, at_least=1)
        check_number("num_gpus_per_learner", self.num_gpus_per_learner, at_least=0, at_most=1)
        check_number("checkpoint_minutes", self.checkpoint_minutes, above=0)
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"address must be auto or host:port, got {self.address!r}.")
        if self.algorithm == "ppo":
            check_rows(
                num_env_runners=self.num_env_runners,
                num_envs_per_env_runner=self.num_envs_per_env_runner,
                num_learners=self.num_learners,
                num_minibatches=self.ppo.num_minibatches,
                prefix="ppo.",
            )
        else:
            _check_stock(self)

    @property
    def num_envs(self) -> int:
        """How many environments are played in all."""
        return max(1, self.num_env_runners) * self.num_envs_per_env_runner

    @property
    def batch_size(self) -> int:
        """How many environment steps one iteration learns from."""
        return self.num_envs * self.ppo.num_rollout_steps


def _check_stock(experiment: Experiment) -> None:
    """Refuses what RLlib's own learner cannot do, and options that it does not know."""
    ppo, defaults = experiment.ppo, PPOSettings()
    for name in ("value_clip", "target_kl", "normalize_rewards", "adam_epsilon"):
        if getattr(ppo, name) != getattr(defaults, name):
            raise ValueError(f"ppo.{name} has no effect with algorithm stock-ppo; leave it out, or use algorithm ppo.")
    if experiment.batch_size % ppo.num_minibatches:
        raise ValueError(
            f"ppo.num_minibatches must divide the {experiment.batch_size} steps of an iteration "
            f"({experiment.num_envs} environments x {ppo.num_rollout_steps} steps), got {ppo.num_minibatches}."
        )
    if experiment.num_learners > 1 and experiment.num_envs % experiment.num_learners:
        raise ValueError(
            f"num_learners must divide the {experiment.num_envs} environments into equal parts, "
            f"got {experiment.num_learners}."
        )


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Gives an experiment as what JSON can hold; ``from_json`` gives it back."""
    return _plain(dataclasses.asdict(experiment))


def from_json(values: object) -> Experiment:
    """Rebuilds an experiment, strictly: a field that is unknown, missing or of the wrong type is refused by its name.

    Args:
        values: what ``json.load`` gave; fields with a default may be left out.

    Returns:
        The experiment, checked.

    Raises:
        ValueError: one line naming the field and what is allowed.
    """
    return _build(Experiment, values, "")


def _plain(value: Any) -> Any:
    """Tuples become lists, the rest stays."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _build(kind: Any, values: object, path: str) -> Any:
    """Makes the dataclass ``kind`` of a JSON object; ``path`` names it in messages."""
    where = path or "experiment"
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a JSON object of fields, got {_said(values)}.")
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            near = _nearest(str(name), list(fields))
            raise ValueError(f"{_join(path, str(name))} is not a field of the {where}; {near}.")
    for name, item in fields.items():
        is_required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if is_required and name not in values:
            raise ValueError(f"{_join(path, name)} is missing.")
    built = {name: _convert(hints[name], value, _join(path, name)) for name, value in values.items()}
    try:
        return kind(**built)
    except ValueError as error:
        # Model configurations name their fields alone; say whose they are.
        message = str(error)
        if path and not message.startswith(f"{path}.") and message.split(" ", 1)[0] in fields:
            message = f"{path}.{message}"
        raise ValueError(message) from error


def _convert(hint: Any, value: object, path: str) -> Any:
    """Checks one JSON value against a field's type and converts it."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _convert(inner, value, path)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{path} must be one of {', '.join(map(str, arguments))}; got {_said(value)}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{path} must be a list, got {_said(value)}.")
        return tuple(_convert(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    # bool is an int to Python, not to a person.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(min(max(value, -(10**300)), 10**300))  # no float is larger than about 1e308
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise ValueError(f"{path} must be {names[hint]}, got {_said(value)}.")
    return value


def _said(value: object) -> str:
    """A value for a message, short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(path: str, name: str) -> str:
    """The full name of a field."""
    return f"{path}.{name}" if path else name


def _nearest(name: str, choices: list[str]) -> str:
    """What is allowed, with the closest one first when there is one."""
    close = difflib.get_close_matches(name, choices, n=1)
    listed = ", ".join(choices)
    return f"did you mean {close[0]}? Allowed: {listed}" if close else f"allowed: {listed}"
