"""Slurm's reasons for a job to wait, in plain words and with what can be done. Pure.

The codes are those of squeue's manual (JOB REASON CODES) and of Slurm's own table, which grows:
src/common/job_state_reason.c, read in 22.05 and in 26.11. A code that is in neither is shown as it
is. Limits come in families ("QOSMaxNodePerUserLimit"), which are read by their parts.
"""

from __future__ import annotations

import re

from msgspec import Struct

from clusterseg.runs.text import one_line

_LONGEST = 300  # characters of what Slurm says


class Reason(Struct, frozen=True):
    """`code` is Slurm's, `text` says it in words, `help` what to do (empty: wait).

    `detail` is what Slurm adds to the code, made fit for a terminal. `movable` says whether the
    job might start sooner if it asked for less, or elsewhere.
    """

    code: str
    text: str
    help: str = ""
    detail: str = ""
    movable: bool = False


def explain(said: str) -> Reason:
    """The reason that squeue (%r) or scontrol (Reason=) gives."""
    words = said.strip()
    if words.startswith("(") and words.endswith(")"):
        words = words[1:-1]
    plain = one_line(words.replace("_", " ").strip(), _LONGEST)
    for pattern, code in _SENTENCES:
        if pattern.search(plain):
            return _known(code, plain)
    code, _, detail = plain.partition(",")
    code, detail = code.strip(), detail.strip()
    if code in _TABLE:
        return _known(code, detail)
    family = _limit(code, detail)
    if family is not None:
        return family
    if code in ("", "null"):
        return _known("None", "")
    if " " in code:  # a sentence of its own
        return Reason("", f"Slurm says: {plain}", "", plain)
    return Reason(code, f"Slurm gives the reason {code}", _LOOK_UP, detail)


def _known(code: str, detail: str) -> Reason:
    text, help, movable = _TABLE[code]
    return Reason(code, text, help, detail, movable)


_LOOK_UP = "the site's documentation, or its support, may know it"
_SUPPORT = "ask the site's support"
_CANCEL = "cancel it, change the job and submit it anew"
_WAITS = ""

# What Slurm writes in place of a code (slurmctld: node_scheduler.c, job_mgr.c).
_SENTENCES = (
    (re.compile(r"^Nodes required for job are DOWN"), "NodeDown"),
    (re.compile(r"launch failed requeued held", re.I), "LaunchFailedHeld"),
    (re.compile(r"requeued held|launch failure limit", re.I), "JobHoldMaxRequeue"),
    (re.compile(r"^job requeued in (held|special exit) state", re.I), "RequeuedHeld"),
    (re.compile(r"account not permitted|not in group permitted", re.I), "AccountNotAllowed"),
    (re.compile(r"QOS not permitted", re.I), "QOSNotAllowed"),
)

# code -> (what it means, what to do, whether asking for less or elsewhere may help)
_TABLE: dict[str, tuple[str, str, bool]] = {
    "None": ("Slurm has not looked at it yet", _WAITS, False),
    "Prolog": ("the site's preparation of the job is running", _WAITS, False),
    "Priority": ("jobs with a higher priority wait for the same nodes", _WAITS, True),
    "Dependency": ("it waits for another job", _WAITS, False),
    "DependencyNeverSatisfied": (
        "it waits for another job to end in a way in which it did not end",
        "cancel it: it will never start",
        False,
    ),
    "Resources": ("it is next, and waits for nodes to become free", _WAITS, True),
    "PartitionNodeLimit": (
        "it asks for more, or fewer, nodes than its partition allows",
        f"{_CANCEL}: resources.nodes, or slurm.partition",
        True,
    ),
    "PartitionTimeLimit": (
        "its time limit is longer than its partition allows",
        f"{_CANCEL}: resources.time, or slurm.partition",
        True,
    ),
    "PartitionDown": ("its partition starts no jobs at the moment", _SUPPORT, True),
    "PartitionInactive": ("its partition takes no jobs at the moment", _SUPPORT, True),
    "PartitionConfig": (
        "its partition does not allow what it asks for",
        f"{_CANCEL}: slurm.partition, slurm.account or slurm.qos",
        True,
    ),
    "JobHeldAdmin": ("an administrator holds it", _SUPPORT, False),
    "JobHeldUser": ("it is held", "clusterseg resume RUN lets it go", False),
    "JobHoldMaxRequeue": (
        "it is held, since it could not be started several times over",
        "look at the nodes with the site's support, then: scontrol release JOB",
        False,
    ),
    # Slurm has no such code: in place of one it writes a sentence.
    "LaunchFailedHeld": (
        "its start on a node failed, so Slurm queued it again and holds it",
        "clusterseg resume RUN lets it go; if that fails again, ask the site's support",
        False,
    ),
    "RequeuedHeld": ("it was queued again and is held", "clusterseg resume RUN lets it go", False),
    "BeginTime": (
        "its earliest start is not reached (a job that was queued again waits for some time)",
        _WAITS,
        False,
    ),
    "Licenses": ("it waits for a licence", _WAITS, False),
    "Reservation": ("it waits for its reservation to begin", _WAITS, False),
    "ReservationDeleted": (
        "its reservation is gone",
        f"{_CANCEL}: leave the reservation out",
        False,
    ),
    "ReservationInvalid": (
        "its reservation can't be used by it",
        f"{_CANCEL}: leave the reservation out",
        False,
    ),
    "ReqNodeNotAvail": (
        "nodes that it needs are down, drained or reserved (for maintenance, say)",
        "if it does not start for long, ask the site's support",
        True,
    ),
    "NodeDown": (
        "nodes that it needs are down, drained or reserved for other jobs",
        "if it does not start for long, ask the site's support",
        True,
    ),
    "FrontEndDown": ("no front end node is up to start it", _SUPPORT, False),
    "BadConstraints": (
        "no node has what it asks for",
        f"{_CANCEL}: resources.ranks_per_node, resources.cpus_per_rank, resources.memory, "
        "resources.accelerator, slurm.constraint",
        True,
    ),
    "Constraints": (
        "no node has, at the moment, what it asks for",
        f"if that does not change, {_CANCEL}: slurm.constraint",
        True,
    ),
    "SystemFailure": ("Slurm, a file system or the network failed", _SUPPORT, False),
    "JobLaunchFailure": (
        "it could not be started on its nodes",
        "the run directory must be on a file system that the nodes share",
        False,
    ),
    "NonZeroExitCode": ("it ended with an error", "clusterseg logs RUN", False),
    "RaisedSignal": ("it was ended by a signal", "clusterseg logs RUN", False),
    "TimeLimit": ("it reached its time limit", _WAITS, False),
    "InactiveLimit": ("it reached the site's limit for inactive jobs", _SUPPORT, False),
    "OutOfMemory": ("it ran out of memory", f"{_CANCEL}: resources.memory", False),
    "DeadLine": ("it can't end before its deadline any more", _CANCEL, False),
    "InvalidAccount": ("its account is not valid", f"{_CANCEL}: slurm.account", False),
    "InvalidQOS": ("its quality of service is not valid", f"{_CANCEL}: slurm.qos", False),
    "AccountNotAllowed": (
        "its account may not use its partition",
        f"{_CANCEL}: slurm.account or slurm.partition",
        True,
    ),
    "QOSNotAllowed": (
        "its quality of service may not be used in its partition",
        f"{_CANCEL}: slurm.qos or slurm.partition",
        True,
    ),
    "QOSUsageThreshold": (
        "its quality of service asks for less usage than the account has had",
        "wait until the usage has aged, or use another slurm.qos",
        False,
    ),
    "QOSJobLimit": ("its quality of service has as many jobs as it may", _WAITS, False),
    "QOSResourceLimit": ("its quality of service uses as much as it may", _WAITS, True),
    "QOSTimeLimit": ("its quality of service has used its time", _WAITS, False),
    "AssociationJobLimit": ("you or your account run as many jobs as they may", _WAITS, False),
    "AssociationResourceLimit": ("you or your account use as much as they may", _WAITS, True),
    "AssociationTimeLimit": ("you or your account have used their time", _SUPPORT, False),
    "AccountingPolicy": ("a limit of the site is reached", _SUPPORT, False),
    "Cleaning": ("it was queued again, and what it left is being cleaned up", _WAITS, False),
    "JobArrayTaskLimit": (
        "as many tasks of its array run as may at once",
        "slurm.array says how many: 0-99%8 allows 8",
        False,
    ),
    "BurstBufferResources": ("it waits for space in the burst buffer", _WAITS, False),
    "BurstBufferStageIn": ("its data is brought into the burst buffer", _WAITS, False),
    "BurstBufferOperation": ("an operation of the burst buffer failed", _SUPPORT, False),
    "FedJobLock": ("the clusters of the federation settle who starts it", _WAITS, False),
    "MaxMemPerLimit": (
        "it asks for more memory a core or node than is allowed",
        f"{_CANCEL}: resources.memory",
        False,
    ),
    "SchedDefer": ("Slurm puts off starting jobs at the moment", _WAITS, False),
    "MaxPoweredUpNodes": ("as many nodes are powered up as may be", _WAITS, True),
    "MpiPortsBusy": ("the ports that its ranks would use are taken", _WAITS, False),
    "NvidiaImexChannels": ("it waits for a channel between GPUs", _WAITS, False),
    "PowerNotAvail": ("the machine's power does not allow for it now", _WAITS, True),
    "PowerReserved": ("power is kept for other jobs", _WAITS, True),
    "WaitingForScheduling": ("Slurm has not looked at it yet", _WAITS, False),
    "InvalidReason": ("Slurm does not say why", _WAITS, False),
}

_RESOURCES = {
    "BB": "burst buffer",
    "Billing": "billing units",
    "CPU": "cores",
    "Cpu": "cores",
    "Energy": "energy",
    "GRES": "GPUs or other devices",
    "Jobs": "running jobs",
    "License": "licences",
    "Mem": "memory",
    "Memory": "memory",
    "Node": "nodes",
    "SubmitJob": "waiting and running jobs",
    "SubmitJobs": "waiting and running jobs",
    "Unknown": "of a resource",
    "Wall": "wall time",
    "WallDuration": "wall time",
}
_SCOPES = {
    "Assoc": "you or your account",
    "QOS": "its quality of service",
    "User": "your jobs",
    "Account": "the jobs of your account",
}
_RESOURCE = "|".join(sorted(_RESOURCES, key=len, reverse=True))
_GROUP = re.compile(rf"(Assoc|QOS)Grp({_RESOURCE})(RunMinutes|Minutes)?(?:Limit)?")
_MOST = re.compile(
    rf"(Assoc|QOS)?Max({_RESOURCE})(?:RunMins|(Minutes))?(?:Per(Job|Node|User|Account))?(?:Limit)?"
)
_LEAST = re.compile(rf"QOSMin({_RESOURCE})(?:NotSatisfied)?")


def _limit(code: str, detail: str) -> Reason | None:
    """A limit of an account or a quality of service (manual of sacctmgr; resource_limits.html)."""
    if found := _GROUP.fullmatch(code):
        who, what = _SCOPES[found[1]], _RESOURCES[found[2]]
        if found[3] == "Minutes":
            text = f"{who} used up what was granted ({what} × minutes)"
            return Reason(code, text, "ask the site for more, or wait until usage has aged", detail)
        return _used_up(code, detail, who, what)
    if found := _MOST.fullmatch(code):
        rule = _SCOPES[found[1] or "Account"]
        what = _RESOURCES[found[2]] + (" × minutes" if found[3] else "")
        if found[4] in ("Job", "Node"):
            text = f"it asks for more {what} than a {found[4].lower()} may have ({rule})"
            return Reason(code, text, f"{_CANCEL}: ask for less", detail, True)
        return _used_up(code, detail, _SCOPES[found[4]] if found[4] else rule, what)
    if found := _LEAST.fullmatch(code):
        text = f"it asks for less {_RESOURCES[found[1]]} than its quality of service is for"
        return Reason(code, text, f"{_CANCEL}: ask for more, or use another slurm.qos", detail)
    return None


def _used_up(code: str, detail: str, who: str, what: str) -> Reason:
    text = f"{who} may not have more {what} at the same time"
    return Reason(code, text, "it starts when other jobs have ended", detail, True)
