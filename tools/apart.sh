# Sourced by tools/cityscapes.sh and tools/qonnx.sh: gets packages that only tests use, and that
# would be in the way in .venv, into a folder of their own in the user's cache:
# ${XDG_CACHE_HOME:-~/.cache}/clusterseg/NAME/KEY, as pinned in tools/NAME.lock. Where they can't be
# had that is said, and is no failure: the tests that need them are skipped by name.
#
#   apart NAME WHAT PYTHONS        get them, for a Python of the versions PYTHONS
#   apart NAME WHAT PYTHONS path   where they are (or would be); exit code 1 where they are not there
#
# They are run by FOLDER/python -S with FOLDER/packages as the only place to import from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

apart() {
  local name=$1 what=$2 pythons=$3 store place
  store=${XDG_CACHE_HOME:-$HOME/.cache}/clusterseg/$name
  place=$store/$(sha256sum < "tools/$name.lock" | cut -c-12)
  if [[ ${4-} == path ]]; then
    echo "$place"
    [[ -d $place ]]
  elif [[ ! -d $place ]]; then
    get
  fi
}

# Made beside its place and renamed, so that what is there is whole.
get() {
  local said code=0
  echo "Fetching $what into $place"
  if ! mkdir -p "$store" 2> /dev/null || [[ ! -w $store ]]; then
    not_there "$store can't be written"
    return
  fi
  sweep
  work=$store/.get.$$
  trap 'rm -rf "$work"' EXIT
  set +e # tested by its code, as in a condition its own failures would count for nothing
  said=$(set -e; install "$work" 2>&1)
  code=$?
  set -e
  if ((code)); then
    not_there "$said"
  elif ! said=$(mv -T "$work" "$place" 2>&1) && [[ ! -d $place ]]; then
    not_there "$said"
  fi
  rm -rf "$work"
}

install() {
  local uv python
  uv=$(tools/find_uv.sh .venv/bin/python)
  python=$("$uv" python find --no-project --no-python-downloads --system "$pythons")
  mkdir -p "$1"
  "$uv" pip install --quiet --python "$python" --target "$1/packages" --no-deps --require-hashes \
    --only-binary :all: -r "tools/$name.lock"
  ln -s "$python" "$1/python"
}

not_there() {
  echo "Not there: $what; the tests that need them are skipped by name"
  grep '[^ ]' <<< "$1" | tail -n 3 | sed 's/^ */  /' || true
}

sweep() {
  local left
  for left in "$store"/.get.*; do
    if [[ -e $left && ! -e /proc/${left##*.} ]]; then rm -rf "$left"; fi
  done
}
