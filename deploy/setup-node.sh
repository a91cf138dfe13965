#!/usr/bin/env bash
# Installs Python, Ray and ctm_rl on a node, in the versions of constraints.txt; arguments are installed besides.
# The launcher's files put it, constraints.txt and the wheel into one directory on every node, and run it there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# With its patch version: Ray and cluster-check compare it, and a node that is started later must have the same.
python=3.11.14

export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
uv venv --quiet --allow-existing --python "$python" "$here/venv"
# torch-backend auto: nodes without a GPU are spared the CUDA libraries. A wheel built anew may have the old version.
uv pip install --quiet --python "$here/venv" --torch-backend auto --constraint "$here/constraints.txt" \
    --reinstall-package ctm-rl "ray[default]" "$@" "$here"/dist/ctm_rl-*.whl

# The token that the launcher's files bring is for this user alone.
[[ ! -f ~/.ray/auth_token ]] || chmod 600 ~/.ray/auth_token

# What the launcher runs on a node, it runs in a shell that reads this file.
for line in "export PATH=\"$here/venv/bin:\$PATH\"" "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"; do
    grep -qxF "$line" ~/.bashrc || echo "$line" >>~/.bashrc
done
