#!/usr/bin/env bash
# Installs the Debian packages that some tests need, where it may: as root, with apt-get.
# Elsewhere those tests are skipped by name, with the reason. Nothing is done when all are there.
#
#   strace: kills a process at its N-th system call (crash-safety of the run directory)
#   bindfs: a file system with old metadata, as NFS shows it
#   slurmctld … libpmix-dev: a real Slurm of several nodes (slurm/devcluster, docs/devcluster.md).
#     libpmix-dev for the name libpmix.so, which Slurm's plug-in for srun --mpi=pmix opens;
#     mariadb-*-core rather than mariadb-server: the program, and no service of its own.
#     Not openmpi-bin: its mpirun on the PATH would be taken for that of the jobs.
set -euo pipefail

packages=(
  strace bindfs
  slurmctld slurmd slurm-client munge iproute2
  slurmdbd mariadb-server-core mariadb-client-core libpmix-dev
)
policy=/usr/sbin/policy-rc.d

main() {
  local missing=() skipped="the tests that need them are skipped by name" said
  mapfile -t missing < <(not_installed)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)) || ! command -v apt-get > /dev/null; then
    echo "Not installed: ${missing[*]} (needs root on Debian or Ubuntu); $skipped"
    return 0
  fi
  echo "Installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  keep_services_stopped
  if ! said=$({ apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } 2>&1); then
    tail -n 5 <<< "$said" >&2
    echo "apt-get can't install ${missing[*]}; $skipped"
  fi
}

not_installed() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q ' installed$' || echo "$package"
  done
}

# munge, slurmctld, slurmd and slurmdbd come as services; devcluster starts its own. Debian asks
# this program before it starts one (invoke-rc.d); 101: no. A policy of this machine's stays.
keep_services_stopped() {
  [[ ! -e $policy ]] || return 0
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
}

main
