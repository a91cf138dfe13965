"""Metrics of answers: accuracy, calibration and ticks needed; summed batch by batch, returned as plain numbers.

Imports nothing of the package but ``config``; imported by ``models``, ``inference`` and ``agents``.
"""

from ctm_rl.metrics.answers import AnswerScores as AnswerScores
from ctm_rl.metrics.answers import at_tick as at_tick
from ctm_rl.metrics.answers import most_certain_tick as most_certain_tick
from ctm_rl.metrics.answers import right_by_tick as right_by_tick
from ctm_rl.metrics.breakdown import PositionScores as PositionScores
from ctm_rl.metrics.breakdown import QuestionScores as QuestionScores
from ctm_rl.metrics.breakdown import RouteScores as RouteScores
from ctm_rl.metrics.calibration import CalibrationScores as CalibrationScores
from ctm_rl.metrics.calibration import brier_scores as brier_scores
from ctm_rl.metrics.calibration import read_probabilities as read_probabilities
from ctm_rl.metrics.humans import HumanScores as HumanScores
from ctm_rl.metrics.intervals import bootstrap_means as bootstrap_means
from ctm_rl.metrics.intervals import interquartile_mean as interquartile_mean
from ctm_rl.metrics.intervals import mean_interval as mean_interval
from ctm_rl.metrics.intervals import share_interval as share_interval
from ctm_rl.metrics.intervals import stratified_interval as stratified_interval
from ctm_rl.metrics.intervals import wilson_interval as wilson_interval
from ctm_rl.metrics.sorting import Emissions as Emissions
from ctm_rl.metrics.sorting import SortingScores as SortingScores
from ctm_rl.metrics.sorting import emissions as emissions
from ctm_rl.metrics.stopping import StoppingScores as StoppingScores
from ctm_rl.metrics.stopping import stopping_ticks as stopping_ticks
from ctm_rl.metrics.ticks import TickCalibration as TickCalibration
from ctm_rl.metrics.ticks import TickScores as TickScores
from ctm_rl.metrics.ticks import find_peaks as find_peaks
