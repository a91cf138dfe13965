"""A sweep in Ray Tune's words: where values are drawn from, who is stopped when, and where metrics go."""

from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.search_space import LISTED, Config, Search
from ctm_rl.agents.tuning.trial import USED_SHARE


def build_space(sweep: Sweep) -> dict[str, Any]:
    """Where every searched field's values come from."""
    return {search.field: _domain(search) for search in sweep.searches}


def build_scheduler(sweep: Sweep) -> TrialScheduler:
    """Who decides which trials go on; time is the share of the budget, which steps and minutes both use up."""
    options = sweep.options
    if options.scheduler == "none":
        return FIFOScheduler()
    if options.scheduler == "asha":
        return ASHAScheduler(
            time_attr=USED_SHARE,
            max_t=1,
            grace_period=options.interval,  # pyright: ignore[reportArgumentType]
            reduction_factor=options.reduction_factor,
        )
    searches = {search.field: search for search in sweep.searches}

    def keep_inside(config: Config) -> Config:
        """Brings what was multiplied back into its range."""
        return {name: searches[name].nearest(value) for name, value in config.items()}

    return PopulationBasedTraining(
        time_attr=USED_SHARE,
        perturbation_interval=options.interval,
        hyperparam_mutations={
            # A list is moved along, one step at a time; a range is drawn from anew, or a number multiplied.
            search.field: list(search.arguments) if search.kind in LISTED else _domain(search)
            for search in sweep.searches
        },
        custom_explore_fn=keep_inside,
        # Before the first episode has ended there is no return.
        require_attrs=False,
        log_config=False,
    )


def build_loggers(sweep: Sweep) -> list[Callback]:
    """Where metrics go beside what every trial writes."""
    loggers: list[Callback] = []
    if "csv" in sweep.options.logger:
        from ray.tune.logger import CSVLoggerCallback

        loggers.append(CSVLoggerCallback())
    if "wandb" in sweep.options.logger:
        from ray.air.integrations.wandb import WandbLoggerCallback

        loggers.append(WandbLoggerCallback(project="ctm-rl", group=sweep.directory.name, log_config=True))
    if "mlflow" in sweep.options.logger:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        loggers.append(MLflowLoggerCallback(experiment_name=sweep.directory.name))
    return loggers


def _domain(search: Search) -> Any:
    """The values a field may take, as Ray Tune draws them."""
    if search.kind in LISTED:
        values = list(search.arguments)
        return tune.choice(values) if search.is_random else tune.grid_search(values)
    if search.kind == "quniform" and all(isinstance(number, int) for number in search.arguments):
        return tune.qrandint(*search.arguments)
    draw = {"uniform": tune.uniform, "loguniform": tune.loguniform, "quniform": tune.quniform, "randint": tune.randint}
    return draw[search.kind](*search.arguments)
