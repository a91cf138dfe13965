"""Measures one minibatch of our agent alone: the forward pass, both passes, and the rate of matrix products."""

from typing import NamedTuple

import torch
from torch import Tensor

from ctm_rl.agents.bench.floor import matrix_rate, now
from ctm_rl.agents.bench.memory import PeakMeter, release_free
from ctm_rl.agents.bench.task import task_of
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.models.actor_critic import ActorCritic

STEPS_PER_EPISODE = 25
"""Mean length of the episodes in the minibatch: that of CartPole's first iterations."""


class MinibatchTiming(NamedTuple):
    """One measurement of a minibatch."""

    forward: float
    """Seconds of the forward pass, which stores what the backward pass needs."""
    forward_backward: float
    """Seconds of both passes."""
    peak_mb: float | None
    """Highest memory of both passes above that before them, in MiB; on a GPU, of the GPU."""
    matrix_rate: float
    """Best rate of matrix products, in GFLOP/s."""


class MinibatchProbe:
    """An experiment's agent with one random minibatch of the experiment's size.

    Args:
        experiment: its model, environment and sizes are used.
    """

    def __init__(self, experiment: ActingExperiment) -> None:
        self.task = task_of(experiment)
        config, layout, actions = self.task
        self.device = torch.device("cuda" if experiment.num_gpus_per_learner > 0 else "cpu")
        self.num_steps = experiment.ppo.num_rollout_steps
        self.num_rows = max(1, experiment.num_envs // experiment.ppo.num_minibatches)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(experiment.seed)
            self._agent = ActorCritic(config, layout, actions).to(self.device)
            size = (self.num_steps, self.num_rows)
            shape = (*size, *layout.shape)
            is_grid = layout.parts[0].encoder == "grid"
            self._observations = (torch.randint(3, shape) if is_grid else torch.randn(shape)).to(self.device)
            self._is_first = (torch.rand(size) < 1 / STEPS_PER_EPISODE).to(self.device)
            self._actions = torch.randint(actions.num_outputs, (*size, 1)).to(self.device)
        with torch.no_grad():
            self._state = self._agent.initial_state(self.num_rows)
            self._critic_state = self._agent.initial_critic_state(self.num_rows)

    def measure(self) -> MinibatchTiming:
        """Measures once; the first measurement includes warming up."""
        self._agent.zero_grad(set_to_none=True)
        is_gpu = self.device.type == "cuda"
        release_free()
        meter = PeakMeter()
        meter.start()
        if is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        held = torch.cuda.memory_allocated(self.device) if is_gpu else 0
        started = now(self.device)
        loss = self._loss()
        forwarded = now(self.device)
        loss.backward()
        ended = now(self.device)
        peak = (torch.cuda.max_memory_allocated(self.device) - held) / 2**20 if is_gpu else meter.above_floor_mb()
        return MinibatchTiming(forwarded - started, ended - started, peak, matrix_rate(self.device))

    def _loss(self) -> Tensor:
        """Like that of proximal policy optimisation: log-probabilities, entropy and values all get a gradient."""
        out = self._agent.unroll(self._observations, self._is_first, self._state, critic_state=self._critic_state)
        logp = out.logits.log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1).mean()
        return out.values.square().mean() - logp.gather(-1, self._actions).mean() - 0.01 * entropy
