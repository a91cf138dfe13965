"""A sweep as Ray Tune's objects: its search space and scheduler."""

import math
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.search_space import LISTED, Config, Search
from ctm_rl.agents.tuning.trial import USED_SHARE


class MetricScheduler(ASHAScheduler):
    """ASHA that compares only trials that have a value of the metric.

    A trial without one ends with NaN, which loggers need; compared with nothing but NaN, numpy would warn.
    """

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Records the last result, if it can be compared."""
        if self.metric is None or math.isnan(result.get(self.metric, math.nan)):
            result = {name: value for name, value in result.items() if name != self.metric}
        super().on_trial_complete(tune_controller, trial, result)


def build_space(sweep: Sweep) -> dict[str, Any]:
    """Returns the distribution, or the list, of every searched field's values."""
    return {search.field: _domain(search) for search in sweep.searches}


def build_scheduler(sweep: Sweep) -> TrialScheduler:
    """Returns the scheduler that stops trials; its time is the used share of the budget, in steps or minutes."""
    options = sweep.options
    if options.scheduler == "none":
        return FIFOScheduler()
    if options.scheduler == "asha":
        return MetricScheduler(
            time_attr=USED_SHARE,
            max_t=1,
            grace_period=options.interval,  # pyright: ignore[reportArgumentType]
            reduction_factor=options.reduction_factor,
        )
    searches = {search.field: search for search in sweep.searches}

    def keep_inside(config: Config) -> Config:
        """Moves values that were multiplied back into their range."""
        return {name: searches[name].nearest(value) for name, value in config.items()}

    return PopulationBasedTraining(
        time_attr=USED_SHARE,
        perturbation_interval=options.interval,
        hyperparam_mutations={
            # A listed value changes to a neighbour; a number is drawn again from its range, or multiplied.
            name: list(search.arguments) if search.kind in LISTED else _domain(search)
            for name, search in searches.items()
        },
        custom_explore_fn=keep_inside,
        # There is no return before the first episode has ended.
        require_attrs=False,
        log_config=False,
    )


def _domain(search: Search) -> Any:
    """A field's values as Ray Tune's distribution or list."""
    if search.kind in LISTED:
        values = list(search.arguments)
        return tune.choice(values) if search.is_random else tune.grid_search(values)
    is_whole = search.kind == "quniform" and all(isinstance(number, int) for number in search.arguments)
    return getattr(tune, "qrandint" if is_whole else search.kind)(*search.arguments)
