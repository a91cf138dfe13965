"""``python -m ctm_rl`` is the command ``ctm-rl``."""

import sys

from ctm_rl.cli.main import main

sys.exit(main())
