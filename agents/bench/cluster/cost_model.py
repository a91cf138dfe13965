"""Predicts the cost of an iteration of PPO on a cluster of any size from parts measured on one machine."""

from typing import NamedTuple


class Costs(NamedTuple):
    """Measured costs; seconds are those of one core, bytes those of one env runner's share of an iteration."""

    act: float
    """Seconds for an env runner to play its share."""
    learn: float
    """Seconds for a learner to learn from one share, all epochs."""
    put: float
    """Seconds for an env runner to put its share into the object store."""
    trip: float
    """Seconds of a call to one env runner without work, with its answer and the new weights."""
    call: float
    """Seconds of the driver for each further env runner."""
    log: float
    """Seconds of the driver to log the metrics of one env runner."""
    gather: float
    """Seconds of the driver to get one share from the object store and join it with the others."""
    scatter: float
    """Seconds of the driver to cut out one share and put it into the object store for a learner."""
    reduce_latency: float
    """Seconds of the smallest message between neighbouring learners."""
    reduce_byte: float
    """Seconds of each byte of such a message."""
    share_bytes: int
    """Size of a share, which an env runner sends."""
    weight_bytes: int
    """Size of the policy's weights, which an env runner receives."""
    gradient_bytes: int
    """Size of the gradients, which learners average in every gradient step."""


class ClusterSize(NamedTuple):
    """Numbers of processes, and the work of each."""

    num_env_runners: int
    num_learners: int
    num_gradient_steps: int
    """Gradient steps of every learner in an iteration."""
    num_steps_per_runner: int
    """Environment steps of one env runner's share."""


class NetworkLimits(NamedTuple):
    """The network between machines."""

    bytes_per_second: float
    """Bandwidth of the driver's machine, in and out together."""
    runners_per_node: int
    """Env runners on each machine: Ray fetches an object once for all of them."""


class IterationCosts(NamedTuple):
    """Seconds of an iteration, by what is busy."""

    act: float
    """Env runners play, all at the same time, and store their shares."""
    driver: float
    """The driver calls, gathers and scatters."""
    network: float
    """Bytes to and from the driver's machine."""
    learn: float
    """Learners learn, each from its part."""
    reduce: float
    """Learners average their gradients."""


class Iteration(NamedTuple):
    """One iteration of a cluster."""

    parts: IterationCosts
    gathered_bytes: int
    """From env runners to the driver."""
    scattered_bytes: int
    """From the driver to learners; a single learner is assumed to be in the driver's process."""
    weight_bytes: int
    """From the driver to the machines of env runners."""
    reduced_bytes: int
    """From each learner to its neighbour."""

    @property
    def seconds(self) -> float:
        """Seconds in total, one part after the other."""
        return sum(self.parts)

    @property
    def seconds_ahead(self) -> float:
        """Seconds with ``ppo.collect_ahead``: env runners play during all other parts."""
        return max(self.parts.act, self.seconds - self.parts.act)

    @property
    def bottleneck(self) -> str:
        """The part that takes longest."""
        return max(IterationCosts._fields, key=lambda name: getattr(self.parts, name))


def predict(costs: Costs, size: ClusterSize, network: NetworkLimits) -> Iteration:
    """Predicts an iteration; every env runner adds a share, so that more of them make more samples.

    Gradients are averaged in a ring: 2(L-1) messages of one L-th each, in every gradient step. All messages of a
    machine are assumed to wait for each other; that learners may send while they compute is not modelled.

    Args:
        costs: of the parts.
        size: of the cluster.
        network: between its machines.

    Returns:
        The iteration's seconds and bytes.
    """
    runners, learners = size.num_env_runners, size.num_learners
    is_remote = learners > 1
    gathered = runners * costs.share_bytes
    scattered = gathered if is_remote else 0
    weights = -(-runners // network.runners_per_node) * costs.weight_bytes
    messages = 2 * (learners - 1) * size.num_gradient_steps
    reduced = messages * costs.gradient_bytes // learners
    parts = IterationCosts(
        act=costs.act + costs.put,
        driver=_driver(costs, runners, learners if is_remote else 0),
        network=(gathered + scattered + weights) / network.bytes_per_second,
        learn=runners * costs.learn / learners,
        reduce=messages * costs.reduce_latency + reduced * max(costs.reduce_byte, 1 / network.bytes_per_second),
    )
    return Iteration(parts, gathered, scattered, weights, reduced)


def _driver(costs: Costs, num_env_runners: int, num_remote_learners: int) -> float:
    """Seconds for the driver to call, gather and scatter."""
    seconds = costs.trip + (num_env_runners - 1) * costs.call + num_env_runners * (costs.log + costs.gather)
    return seconds + num_remote_learners * costs.call + num_env_runners * costs.scatter * (num_remote_learners > 0)


def predict_on_one_machine(costs: Costs, size: ClusterSize, num_cores: int) -> float:
    """Predicts an iteration of a simulation in which all processes share one machine and no network is used.

    Storing shares takes cores that other processes need; playing and learning are assumed to need none, since the
    simulated processes only wait as long.

    Args:
        costs: of the parts.
        size: of the simulated cluster.
        num_cores: of the machine.

    Returns:
        Seconds, one part after the other, without averaging gradients.
    """
    parts = predict(costs, size, NetworkLimits(float("inf"), 1)).parts
    others = (size.num_env_runners - 1) * costs.put / num_cores
    return parts.act + parts.driver + parts.learn + others
