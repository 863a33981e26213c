#!/usr/bin/env bash
# Runs tests in sessions side by side; `make test` and `make proof` call it.
#
# The tests on a real Slurm mostly wait (for its cycles, leases and graces), so do those on real
# launchers; those of the trainer mostly compute: one after the other would leave the machine idle.
# What the last session says is shown as it comes, that of the others in one piece when they have
# ended.
#
#   tools/run_tests.sh test|proof [arguments for all, as --durations=50]
set -euo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp -d)
running=() names=()
trap 'kill ${running[@]+"${running[@]}"} 2> /dev/null || true; rm -rf "$output"' EXIT

# Each has a cache of its own: none may take another's list of what failed last for its own.
in_background() { # NAME ARGUMENTS…
  pytest -o cache_dir=".pytest_cache/$1" "${@:2}" > "$output/$1" 2>&1 &
  running+=($!) names+=("$1")
}

which=${1-}
shift || true
case $which in
  test)
    in_background slurm -m "slurm and not proof" "$@"
    in_background launchers -m "launchers and not slurm and not proof" tests/launchers "$@"
    # Those of the trainer take longer than the rest: some of them go with it.
    in_background train -m "not slurm and not proof" tests/train \
      --ignore-glob='tests/train/test_[a-e]*' "$@"
    last=(-m "not slurm and not launchers and not proof"
      --ignore-glob='tests/train/test_[!a-e]*')
    ;;
  proof)
    in_background long -m proof --ignore=tests/proof "$@"
    last=(-m proof tests/proof)
    ;;
  *)
    echo "usage: tools/run_tests.sh test|proof [arguments for pytest]" >&2
    exit 2
    ;;
esac
code=0
pytest "${last[@]}" "$@" || code=$?
failed=()
((code == 0)) || failed+=("the rest ($code)")
for number in "${!running[@]}"; do
  name=${names[number]} code=0
  wait "${running[number]}" || code=$?
  ((code == 0)) || failed+=("$name ($code)")
  cat "$output/$name"
done
running=()
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
