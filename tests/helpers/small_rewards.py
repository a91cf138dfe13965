"""CartPole whose rewards are small, as POPGym's are; imported by its id."""

import gymnasium as gym
from gymnasium.wrappers import TransformReward

NUM_STEPS = 500


def cartpole() -> gym.Env:
    """CartPole that returns 1/500 a step, so that a whole episode is worth at most 1."""
    env = gym.make("CartPole-v1", max_episode_steps=NUM_STEPS)
    return TransformReward(env, lambda reward: float(reward) / NUM_STEPS)
