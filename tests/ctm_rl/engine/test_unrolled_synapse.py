"""Synapses of several blocks and U-Nets over all ticks: forward and backward pass equal ticking one by one."""

import pytest
import torch
from answering_paths import CASES, SYNAPSES, assert_equal_paths


@pytest.mark.parametrize("case", SYNAPSES)
def test_the_forward_and_backward_pass_of_a_synapse_equal_ticking_one_by_one(case: str) -> None:
    assert_equal_paths(CASES[case], torch.float64, value=1e-10, grad=1e-9)


def test_a_u_net_equals_ticking_one_by_one_in_single_precision() -> None:
    assert_equal_paths(CASES["U-Net of four"], torch.float32, value=1e-5, grad=1e-4)
