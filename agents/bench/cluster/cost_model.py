"""What an iteration of PPO costs on a cluster of any size, from what its parts were measured to cost on one machine."""

from typing import NamedTuple


class Costs(NamedTuple):
    """What was measured; seconds are those of one core, bytes those of one process's share."""

    act: float
    """Seconds in which an env runner plays its share of an iteration."""
    learn: float
    """Seconds in which a learner learns from one env runner's share, all epochs."""
    put: float
    """Seconds in which an env runner hands its share to the object store."""
    trip: float
    """Seconds until one env runner that has nothing to do has been asked, has answered, and has got weights."""
    call: float
    """Seconds of the driver for each further one."""
    log: float
    """Seconds of the driver to take in the metrics of one env runner."""
    gather: float
    """Seconds of the driver to take one share out of the object store and lay it to the others."""
    scatter: float
    """Seconds of the driver to cut one share out and put it where a learner finds it."""
    reduce_latency: float
    """Seconds of one message between neighbouring learners, however small."""
    reduce_byte: float
    """Seconds of each byte of such a message."""
    share_bytes: int
    """What an env runner sends: its share of an iteration."""
    weight_bytes: int
    """What an env runner gets: the policy's weights."""
    gradient_bytes: int
    """What learners agree on in every gradient step."""


class ClusterSize(NamedTuple):
    """Who takes part, and what each has to do."""

    num_env_runners: int
    num_learners: int
    num_gradient_steps: int
    """Of every learner, in an iteration."""
    num_steps_per_runner: int
    """Environment steps of one env runner's share."""


class NetworkLimits(NamedTuple):
    """What lies between machines."""

    bytes_per_second: float
    """Of the driver's machine, in and out together."""
    runners_per_node: int
    """Env runners of one machine: Ray fetches an object for all of them once."""


class IterationCosts(NamedTuple):
    """Seconds of an iteration, by who is busy."""

    act: float
    """Env runners play, all at the same time, and hand over what they played."""
    driver: float
    """The driver orders, gathers, and hands on."""
    network: float
    """Bytes to and from the driver's machine."""
    learn: float
    """Learners learn, each from its share."""
    reduce: float
    """Learners agree on gradients."""


class Iteration(NamedTuple):
    """One iteration of a cluster."""

    parts: IterationCosts
    gathered_bytes: int
    """From env runners to the driver."""
    scattered_bytes: int
    """From the driver to learners; a single learner is taken to be the driver's own process."""
    weight_bytes: int
    """From the driver to the machines of env runners."""
    reduced_bytes: int
    """What each learner sends to its neighbour."""

    @property
    def seconds(self) -> float:
        """In turn: one part after the other."""
        return sum(self.parts)

    @property
    def seconds_ahead(self) -> float:
        """With ``ppo.collect_ahead``: env runners play while the rest is done."""
        return max(self.parts.act, self.seconds - self.parts.act)

    @property
    def bottleneck(self) -> str:
        """The part that takes longest."""
        return max(IterationCosts._fields, key=lambda name: getattr(self.parts, name))


def predict(costs: Costs, size: ClusterSize, network: NetworkLimits) -> Iteration:
    """Adds up an iteration; every env runner brings a share of its own, so that more of them bring more samples.

    Gradients go round a ring: 2(L-1) messages of one L-th each, in every gradient step. All messages of a machine are
    taken to wait for each other; that learners send while they compute, as they may, is left out.

    Args:
        costs: what was measured.
        size: who takes part.
        network: what lies between them.

    Returns:
        Its seconds and bytes.
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
    """Seconds in which the driver orders, gathers and hands on."""
    seconds = costs.trip + (num_env_runners - 1) * costs.call + num_env_runners * (costs.log + costs.gather)
    return seconds + num_remote_learners * costs.call + num_env_runners * costs.scatter * (num_remote_learners > 0)


def predict_on_one_machine(costs: Costs, size: ClusterSize, num_cores: int) -> float:
    """Seconds of an iteration in which all processes share one machine's cores and nothing goes over a network.

    What env runners do beside playing then takes cores that others need; playing and learning are taken to need none,
    as those do who only wait as long.

    Args:
        costs: what was measured.
        size: who takes part.
        num_cores: of the machine.

    Returns:
        In turn, without agreeing on gradients.
    """
    parts = predict(costs, size, NetworkLimits(float("inf"), 1)).parts
    others = (size.num_env_runners - 1) * costs.put / num_cores
    return parts.act + parts.driver + parts.learn + others
