"""What a configuration asks for that must be named by this user, see ``ctm_rl.trust``: modules, clusters and places."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.errors import expand
from ctm_rl.trust import Claim as Claim
from ctm_rl.trust import check_trusted as check_trusted
from ctm_rl.trust import code_claims, encoder_claims
from ctm_rl.trust import fixed_import_path as fixed_import_path
from ctm_rl.trust import import_from_current_folder as import_from_current_folder
from ctm_rl.trust import installed_path as installed_path
from ctm_rl.trust import remember as remember

HUB = "hf:"
"""How the path of a data set begins that is loaded from the network."""


def run_claims(experiment: AnyExperiment) -> list[Claim]:
    """Returns what training an experiment asks for, see ``Claim``; imports nothing.

    ``auto`` is the cluster of this machine, or of its environment variables, and not a choice of the configuration.
    """
    claims = [*env_claims(experiment.env), *encoder_claims(experiment.model)]
    claims += value_claims({"--callbacks": experiment.callbacks, "--logger": experiment.logger})
    claims += value_claims({"--eval.env": experiment.eval.env or "", "--eval.kwargs": experiment.eval.kwargs})
    if experiment.address not in (None, "auto"):
        claims.append(Claim("--address", "join the Ray cluster at {}", str(experiment.address)))
    if experiment.storage is not None:
        claims.append(Claim("--storage", "write checkpoints to {}", _absolute(experiment.storage)))
    return claims


def file_claims(experiment: AnyExperiment) -> list[Claim]:
    """As ``run_claims``, for a file of ``--config``, which may also choose the run's directory."""
    claims = run_claims(experiment)
    if experiment.run_dir is not None:
        claims.append(Claim("--run-dir", "write the run to {}", _absolute(experiment.run_dir)))
    return claims


def env_claims(env: EnvConfig | TaskConfig, *, replaced: Collection[str] = ()) -> list[Claim]:
    """Returns what playing an environment asks for.

    Args:
        env: the environment. A module may also be named by an argument, as ``ctm_rl/Wrapped-v0`` does.
        replaced: names of arguments whose values are replaced by the caller's.
    """
    values: dict[str, Any] = {"--env.kwargs": {name: env.kwargs[name] for name in env.kwargs if name not in replaced}}
    if isinstance(env, TaskConfig):
        held_out = env.held_out_kwargs
        values["--env.held-out-kwargs"] = {name: held_out[name] for name in held_out if name not in replaced}
    else:
        values["--env.wrappers"] = env.wrappers
    return value_claims({"--env.id": env.id, **values})


def value_claims(values: Mapping[str, Any]) -> list[Claim]:
    """Returns the modules of the current folder, the code and the data sets of the network that texts name.

    Args:
        values: a text, or texts in nested lists and dictionaries, by the option that they belong to.
    """
    claims: list[Claim] = []
    for option, value in values.items():
        for text in _texts(value):
            if text.startswith(HUB):
                claims.append(Claim(option, "load the data set {} from the network", text))
            else:
                claims += code_claims(option, text)
    return list(dict.fromkeys(claims))


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)


def _absolute(place: str) -> str:
    """A path made absolute; a URL as it is."""
    return place if "://" in place else str(expand(place).absolute())
