"""A policy so small that tests of the algorithms build and train it in moments."""

from ctm_rl.config import PolicyConfig

SMALL = PolicyConfig(
    num_neurons=9,
    history_length=4,
    num_ticks=2,
    nlm_hidden_dim=2,
    num_output_sync_neurons=5,
    feature_dim=6,
    head_dims=(8,),
    baseline_dim=7,
)
