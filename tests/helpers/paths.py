"""Where things lie in a checkout or a source archive."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
"""Recorded cases: inputs, weights and outputs of the published code, and runs of earlier versions."""
