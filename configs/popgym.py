"""POPGym: small tasks for memory, from the extra ``popgym``. Source: Morad et al., ICLR 2023, arXiv:2303.01859."""

from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.configs.any_env import for_env


def _popgym(name: str, env_id: str) -> ActingExperiment:
    """A task with the settings of any environment, which last for a million steps."""
    return replace(for_env(f"popgym-{env_id}-v0"), name=f"popgym-{name}")


def popgym_repeat_previous_easy() -> ActingExperiment:
    """RepeatPreviousEasy, 51 steps: name the suit of the card shown three steps before."""
    return _popgym("repeat-previous-easy", "RepeatPreviousEasy")


def popgym_repeat_previous_medium() -> ActingExperiment:
    """RepeatPreviousMedium, 103 steps: name the suit of the card shown 31 steps before."""
    return _popgym("repeat-previous-medium", "RepeatPreviousMedium")


def popgym_repeat_first_easy() -> ActingExperiment:
    """RepeatFirstEasy, 51 steps: name the suit of the first card, again and again."""
    base = _popgym("repeat-first-easy", "RepeatFirstEasy")
    # with a smaller rate two seeds of three hardly begin within 100,000 steps
    return replace(base, model=replace(base.model, use_long_memory=True), ppo=replace(base.ppo, lr=3e-3))


def popgym_repeat_first_medium() -> ActingExperiment:
    """RepeatFirstMedium, 415 steps: name the suit of the first card, again and again."""
    return _popgym("repeat-first-medium", "RepeatFirstMedium")


def popgym_count_recall_easy() -> ActingExperiment:
    """CountRecallEasy, 51 steps: say how many cards of the colour that is asked for have been dealt."""
    return _popgym("count-recall-easy", "CountRecallEasy")


def popgym_autoencode_easy() -> ActingExperiment:
    """AutoencodeEasy, 103 steps: watch the suits of 52 cards, then name them in reverse order."""
    return _popgym("autoencode-easy", "AutoencodeEasy")


def popgym_position_only_cartpole_hard() -> ActingExperiment:
    """PositionOnlyCartPoleHard, 600 steps: CartPole without velocities."""
    return _popgym("position-only-cartpole-hard", "PositionOnlyCartPoleHard")


def popgym_noisy_position_only_cartpole_hard() -> ActingExperiment:
    """NoisyPositionOnlyCartPoleHard, 200 steps: CartPole without velocities, and with noise."""
    base = _popgym("noisy-position-only-cartpole-hard", "NoisyPositionOnlyCartPoleHard")
    # what was done says more than a noisy observation of it; POPGym's published runs show it too
    return replace(base, env=replace(base.env, previous_action=True))
