#!/usr/bin/env bash
# Gets the MPIs that tests/launchers starts, each into a folder of its own in the user's cache:
# ${XDG_CACHE_HOME:-~/.cache}/clusterseg/mpis/NAME-KEY, with bin/ and lib/ below it.
#
#   tools/mpis.sh              all of them; `make test` and `make proof` call it
#   tools/mpis.sh NAME…        those
#   tools/mpis.sh path NAME    where NAME is (or would be); exit code 1 where it is not there
#
# openmpi4, openmpi5, mpich, mpich4 and intelmpi are wheels pinned in tools/mpis/NAME.lock: 390 MB,
# of which Intel's is 300. debian is the Open MPI of this machine's Debian or Ubuntu, unpacked but
# not installed: an mpirun on the PATH would be taken for that of the jobs. What can't be had is
# named, and the tests that need it are skipped by name: that is no failure.
set -euo pipefail
cd "$(dirname "$0")/.."
store=${XDG_CACHE_HOME:-$HOME/.cache}/clusterseg/mpis
wheels=(openmpi4 openmpi5 mpich mpich4 intelmpi)

main() {
  if [[ ${1-} == path ]]; then
    folder "${2:?usage: tools/mpis.sh path NAME}"
    [[ -d $(folder "$2") ]]
    return
  fi
  local name names=("$@")
  ((${#names[@]})) || names=("${wheels[@]}" debian)
  for name in "${names[@]}"; do
    [[ -d $(folder "$name") ]] || get "$name"
  done
}

# The key changes with the pins; for debian with the release, whose libraries it is laid over, and
# with the way it is unpacked.
folder() {
  local key
  if [[ $1 == debian ]]; then
    key=$({ cat /etc/os-release; declare -f unpack needed; } 2> /dev/null | sha256sum)
  elif [[ -e tools/mpis/$1.lock ]]; then
    key=$(sha256sum < "tools/mpis/$1.lock")
  else
    echo "tools/mpis.sh: no MPI '$1'; there are ${wheels[*]} debian" >&2
    exit 2
  fi
  echo "$store/$1-${key:0:12}"
}

# Made beside its place and renamed, so that what is there is whole. Whoever comes second finds
# that of the first; what a killed one left behind is swept away.
get() {
  local name=$1 place said code=0 method=install
  [[ $name == debian ]] && method=unpack
  place=$(folder "$name")
  echo "Fetching the MPI $name into $place"
  if ! mkdir -p "$store" 2> /dev/null || [[ ! -w $store ]]; then
    not_there "$name" "$store can't be written"
    return
  fi
  sweep "$name"
  work=$store/.$name.$$
  trap 'rm -rf "$work"' EXIT
  set +e # tested by its code, as in a condition its own failures would count for nothing
  said=$(set -e; "$method" "$name" "$work" 2>&1)
  code=$?
  set -e
  if ((code)); then
    not_there "$name" "$said"
  elif ! said=$(mv -T "$work" "$place" 2>&1) && [[ ! -d $place ]]; then
    not_there "$name" "$said"
  fi
  rm -rf "$work"
}

not_there() {
  echo "Not there: the MPI $1; the tests that need it are skipped by name"
  grep '[^ ]' <<< "$2" | tail -n 3 | sed 's/^ */  /' || true
}

sweep() {
  local left
  for left in "$store/.$1".*; do
    if [[ -e $left && ! -e /proc/${left##*.} ]]; then rm -rf "$left"; fi
  done
}

# Without an environment of its own: the ranks are those of .venv, on this libmpi.
install() {
  local uv
  uv=$(tools/find_uv.sh .venv/bin/python)
  "$uv" pip install --quiet --python .venv/bin/python --prefix "$2" --require-hashes \
    -r "tools/mpis/$1.lock"
}

# What apt-get would install, laid out as it would lie: with the links that are made afterwards.
unpack() {
  if ! command -v apt-get dpkg-deb > /dev/null; then
    echo "needs the apt-get and dpkg-deb of Debian or Ubuntu"
    return 1
  fi
  local package program packages
  packages=$(needed)
  mkdir -p "$2/packages"
  # As root apt-get would drop to a user that may not write here, and say so.
  (cd "$2/packages" && apt-get download -qq -o APT::Sandbox::User=root $packages)
  for package in "$2"/packages/*.deb; do
    dpkg-deb --extract "$package" "$2"
  done
  rm -r "$2/packages"
  if [[ -d $2/lib ]]; then # /lib is a link to /usr/lib
    cp -a "$2/lib/." "$2/usr/lib/"
    rm -r "$2/lib"
  fi
  mkdir -p "$2/etc/alternatives"
  for program in mpirun mpiexec; do
    ln -s "/usr/bin/$program.openmpi" "$2/etc/alternatives/$program"
    ln -s "/etc/alternatives/$program" "$2/usr/bin/$program"
  done
}

# openmpi-bin, its own libraries, and what else it needs and is not installed here; one a line.
needed() {
  {
    echo openmpi-bin
    apt-cache depends openmpi-bin | sed -n 's/^ *Depends: \(libopenmpi[^ ]*\|openmpi-common\)$/\1/p'
    apt-get install --simulate --no-install-recommends openmpi-bin |
      sed -n 's/^Inst \([^ ]*\) .*/\1/p'
  } 2> /dev/null | sort -u
}

main "$@"
