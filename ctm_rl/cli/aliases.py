"""Option names of other libraries and of earlier versions: an alias where the meaning is the same, else a hint."""

import difflib
from collections.abc import Collection

from ctm_rl.errors import UserError

ALIASES: dict[str, tuple[str, ...]] = {
    # Earlier names, in one word.
    "--env-kwargs": ("--env.kwargs",),
    "--env-wrappers": ("--env.wrappers",),
    "--tolerate-env-faults": ("--env.tolerate-faults",),
    # Models that answer are evaluated on samples; where a command shows samples, it has this option itself.
    "--samples": ("--episodes",),
    # Stable-Baselines3, its contrib and its zoo; CleanRL; RLlib; rsl_rl; Lightning.
    "--total-timesteps": ("--budget.env-steps",),
    "--n-timesteps": ("--budget.env-steps", "--steps"),
    "--stop-timesteps": ("--budget.env-steps",),
    "--num-env-steps": ("--budget.env-steps",),
    "--max-time": ("--budget.minutes",),
    "--learning-rate": ("--ppo.lr", "--learning.lr"),
    "--lr": ("--ppo.lr", "--learning.lr"),
    "--desired-kl": ("--ppo.lr-kl-target",),
    "--gamma": ("--ppo.gamma",),
    "--gae-lambda": ("--ppo.gae-lambda",),
    "--lambda": ("--ppo.gae-lambda",),
    "--clip-range": ("--ppo.clip", "--bandit.clip"),
    "--clip-coef": ("--ppo.clip", "--bandit.clip"),
    "--clip-param": ("--ppo.clip", "--bandit.clip"),
    "--ent-coef": ("--ppo.entropy-coefficient", "--bandit.entropy-coefficient"),
    "--entropy-coeff": ("--ppo.entropy-coefficient", "--bandit.entropy-coefficient"),
    "--max-grad-norm": ("--ppo.max-grad-norm", "--learning.max-grad-norm"),
    "--grad-clip": ("--ppo.max-grad-norm", "--learning.max-grad-norm"),
    "--gradient-clip-val": ("--ppo.max-grad-norm", "--learning.max-grad-norm"),
    "--n-epochs": ("--ppo.num-epochs",),
    "--num-epochs": ("--ppo.num-epochs",),
    "--update-epochs": ("--ppo.num-epochs",),
    "--num-sgd-iter": ("--ppo.num-epochs",),
    "--num-minibatches": ("--ppo.num-minibatches",),
    "--n-steps": ("--ppo.num-rollout-steps",),
    "--num-steps": ("--ppo.num-rollout-steps",),
    "--rollout-fragment-length": ("--ppo.num-rollout-steps",),
    "--anneal-lr": ("--ppo.is-lr-annealed",),
    "--no-anneal-lr": ("--ppo.no-is-lr-annealed",),
    "--norm-obs": ("--model.normalize-observations",),
    "--norm-reward": ("--ppo.normalize-rewards",),
    "--batch-size": ("--learning.batch-size",),
    "--weight-decay": ("--learning.weight-decay",),
    "--warmup-steps": ("--learning.num-warmup-steps",),
    "--accumulate-grad-batches": ("--learning.num-accumulated",),
    "--num-envs": ("--num-envs-per-env-runner",),
    "--n-envs": ("--num-envs-per-env-runner",),
    "--num-envs-per-worker": ("--num-envs-per-env-runner",),
    "--num-workers": ("--num-env-runners",),
    "--num-rollout-workers": ("--num-env-runners",),
    "--algo": ("--algorithm",),
    "--exp-name": ("--name",),
    "--checkpoint-freq": ("--checkpoint-iterations",),
    "--eval-episodes": ("--eval.episodes",),
    "--n-eval-episodes": ("--eval.episodes", "--episodes"),
    "--num-episodes": ("--episodes",),
    "--load-checkpoint": ("--checkpoint",),
    "--video-length": ("--steps",),
    "--patience": ("--stop.patience",),
    "--stop-reward": ("--stop.at-return",),
}
"""For each name the options that mean the same, of which a command has at most one."""

_DEVICE = "learning is on the CPU unless --num-gpus-per-learner 1 gives it a GPU"
_MINIBATCH = (
    "here it follows from others: an iteration has num_envs_per_env_runner x runners x --ppo.num-rollout-steps steps, "
    "and --ppo.num-minibatches divides them"
)
_VALUE = (
    "--ppo.value-coefficient weights half the squared error, as CleanRL's vf_coef; SB3's weights all of it: double it"
)
_VALUE_CLIP = "--ppo.value-clip is how far a value may move before its loss stops falling; others clip differently"
_KL = (
    "there is no penalty on the KL divergence; --ppo.target-kl ends an iteration's passes, and --ppo.lr-kl-target "
    "adapts the learning rate"
)
_NOISE = "noise that lasts for some steps is --ppo.noise-correlation, such as 0.9"
_EPOCHS = "--budget.env-steps counts the steps, or the samples of a data set: epochs times its size"
_DIRECTORY = "a run writes everything, TensorBoard events too, to --run-dir"
_EVALUATION = "--eval.every counts iterations, not steps"
HINTS: dict[str, str] = {
    "--batch-size": _MINIBATCH,
    "--minibatch-size": _MINIBATCH,
    "--sgd-minibatch-size": _MINIBATCH,
    "--train-batch-size": _MINIBATCH,
    "--train-batch-size-per-learner": _MINIBATCH,
    "--vf-coef": _VALUE,
    "--vf-loss-coeff": _VALUE,
    "--clip-vloss": _VALUE_CLIP,
    "--clip-range-vf": _VALUE_CLIP,
    "--vf-clip-param": _VALUE_CLIP,
    "--kl-target": _KL,
    "--kl-coeff": _KL,
    "--use-sde": _NOISE,
    "--sde-sample-freq": _NOISE,
    "--norm-adv": "advantages are always normalised",
    "--cuda": _DEVICE,
    "--gpu": _DEVICE,
    "--gpus": _DEVICE,
    "--device": _DEVICE,
    "--num-gpus": _DEVICE,
    "--accelerator": _DEVICE,
    "--devices": "--num-learners N learns in N processes, with --num-gpus-per-learner 1 on as many GPUs",
    "--track": "--logger wandb sends metrics to Weights & Biases",
    "--wandb-project-name": "--logger wandb takes the project from the environment variable WANDB_PROJECT",
    "--wandb-entity": "--logger wandb takes the entity from the environment variable WANDB_ENTITY",
    "--capture-video": "--video-every N writes a video every N iterations, ctm-rl record RUN one of a trained run",
    "--load-best": "--checkpoint best takes the best checkpoint",
    "--stochastic": "actions are drawn unless --deterministic is given",
    "--output-folder": "--out names the video",
    "--tensorboard-log": _DIRECTORY,
    "--log-dir": _DIRECTORY,
    "--log-folder": _DIRECTORY,
    "--output-dir": _DIRECTORY,
    "--local-dir": _DIRECTORY,
    "--default-root-dir": _DIRECTORY,
    "--epochs": _EPOCHS,
    "--max-epochs": _EPOCHS,
    "--num-epochs": _EPOCHS,
    "--max-steps": "--budget.env-steps counts the steps, or samples: optimiser steps times --learning.batch-size",
    "--stop-iters": "--budget.env-steps counts steps: iterations times environments times --ppo.num-rollout-steps",
    "--num-iterations": "--budget.env-steps counts steps: iterations times environments times --ppo.num-rollout-steps",
    "--eval-freq": _EVALUATION,
    "--evaluation-interval": _EVALUATION,
    "--save-freq": "--checkpoint-iterations counts iterations, --checkpoint-minutes minutes",
    "--torch-deterministic": "the same --seed always gives the same metrics on the CPU",
    "--policy": "--model.kind is ctm, lstm, gru or mlp, and --model.encoder how observations are read",
    "--resume": "ctm-rl resume DIR continues a run",
    "--verbose": "a run shows its progress on a terminal, and writes a line every few seconds elsewhere",
}
"""What to do instead, where another library's option has no equal here; one clause."""
_ALL_ENVIRONMENTS = ("--num-envs", "--n-envs")
"""Names that count the environments of all runners together."""


def alias_of(name: str, known: Collection[str]) -> str | None:
    """Returns the option of a command that means the same as another library's; ``None``: there is none."""
    return next((option for option in ALIASES.get(name, ()) if option in known), None)


def closest_alias(name: str, known: Collection[str]) -> str | None:
    """Returns the option behind the name of another library that is most like a misspelt one; ``None``: none is."""
    usable = [alias for alias in ALIASES if alias_of(alias, known) is not None]
    closest = difflib.get_close_matches(name, usable, n=1, cutoff=0.8)
    return alias_of(closest[0], known) if closest else None


def check_meaning(name: str, num_env_runners: int) -> None:
    """Refuses a count of all environments where there are several runners, each with its own.

    Raises:
        UserError: one line with the option to use.
    """
    if name in _ALL_ENVIRONMENTS and num_env_runners > 1:
        raise UserError(
            f"{name} counts all environments, and here {num_env_runners} runners have their own: give "
            "--num-envs-per-env-runner, the number of each."
        )


def did_you_mean(name: str, choices: Collection[str]) -> str:
    """Returns a question that names the most similar choice, with a space behind it; empty if none is similar."""
    closest = difflib.get_close_matches(name, choices, n=1)
    return f"did you mean {closest[0]}? " if closest else ""
