"""Complete experiments: each is a function that returns one checked experiment, ``registry`` has them by name.

The first line of a function's docstring is its description in ``ctm-rl list``. Imports ``agents.experiments`` and the
core's configurations; loads neither PyTorch nor Ray.
"""

from ctm_rl.configs.registry import describe as describe
from ctm_rl.configs.registry import for_data as for_data
from ctm_rl.configs.registry import for_env as for_env
from ctm_rl.configs.registry import for_task as for_task
from ctm_rl.configs.registry import load as load
from ctm_rl.configs.registry import names as names
