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
skipped="the tests that need them are skipped by name"

main() {
  local missing=()
  mapfile -t missing < <(not_installed)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)) || ! command -v apt-get > /dev/null; then
    echo "Not installed: ${missing[*]} (needs root on Debian or Ubuntu); $skipped"
    return 0
  fi
  if [[ " ${missing[*]} " == *" slurm-client "* ]] && command -v sbatch > /dev/null; then
    echo "Not installed: ${missing[*]}: this machine has a Slurm of its own; $skipped"
    return 0
  fi
  echo "Installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  keep_services_stopped
  apt-get update -qq > /dev/null 2>&1 || true # what is known of the archive may do
  if install "${missing[@]}" > /dev/null 2>&1; then
    return 0
  fi
  local package said failed=()
  for package in "${missing[@]}"; do # as many as there can be
    if ! said=$(install "$package" 2>&1); then
      failed+=("$package")
      tail -n 2 <<< "$said" >&2
    fi
  done
  echo "apt-get can't install ${failed[*]}; $skipped"
}

# Never at the price of a package that is there (a MySQL server bars MariaDB's).
install() {
  apt-get install -qq -y --no-install-recommends --no-remove "$@"
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
