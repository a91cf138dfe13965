"""``ctm-rl bench``: what training costs, beside others and beside the arithmetic, measured in one run."""
