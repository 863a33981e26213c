#!/usr/bin/env bash
# Runs the suite in two sessions side by side; `make test` calls it.
#
# The tests on a real Slurm mostly wait (for its cycles, leases and graces), the others mostly
# compute. What the first session prints comes in one piece when it has ended.
#
#   tools/run_tests.sh [arguments for both, as --durations=50]
set -euo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp)
slurm=
trap 'kill $slurm 2> /dev/null || true; rm -f "$output"' EXIT

# Neither may take the other's cache of what failed last for its own.
pytest -m "slurm and not proof" -o cache_dir=.pytest_cache/slurm "$@" > "$output" 2>&1 &
slurm=$!
others=0 waiting=0
pytest -m "not slurm and not proof" "$@" || others=$?
wait "$slurm" || waiting=$?
slurm=
cat "$output"
if ((others || waiting)); then
  echo "failed: the tests without Slurm ended with $others, those on a real Slurm with $waiting" >&2
  exit 1
fi
