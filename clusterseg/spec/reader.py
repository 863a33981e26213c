"""From a job.yaml (or any text of one) to a JobSpec, or to all that is wrong with it.

bytes -> text -> nodes (nodes.py) -> with --set laid over (overrides.py)
      -> variables filled in (expand.py) -> values by type (convert.py) -> JobSpec
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clusterseg.errors import ClustersegError
from clusterseg.shipped import search_path
from clusterseg.spec import nodes
from clusterseg.spec.augment import problems_of as augmentation_problems
from clusterseg.spec.convert import BAD, Converter
from clusterseg.spec.errors import Place, Problem, Source, SpecError
from clusterseg.spec.expand import Expander
from clusterseg.spec.findings import TooMany
from clusterseg.spec.kinds import type_of
from clusterseg.spec.model import JobSpec
from clusterseg.spec.overrides import apply, read_overrides
from clusterseg.spec.stand_ins import filled_in
from clusterseg.spec.tables import LAUNCHERS, MODELS

LARGEST = 2**20  # bytes of a job.yaml
_START = "clusterseg schema shows every key; a job needs `name` and `train` or `command`"


@dataclass(frozen=True)
class JobFile:
    """A job.yaml that was read: what it says, and where each key's value stands."""

    spec: JobSpec
    name: str
    places: Mapping[tuple[str, ...], Place]

    def placed(self, error: ClustersegError) -> SpecError:
        """`error` as problems of this file, each at the value of the key that it is about.

        A SpecError says the keys itself; any other error is about the key that its message
        begins with (`resources: ...`), if it begins with one.
        """
        if isinstance(error, SpecError):
            problems = error.problems
        else:
            key = error.message.partition(":")[0].split(" ")[0].strip("`")
            known = tuple(key.split("."))[:1] in self.places
            problems = (
                Problem(
                    error.code, error.message, help=error.help or "", key=key if known else None
                ),
            )
        return SpecError([self._placed(problem) for problem in problems], exit_code=error.exit_code)

    def _placed(self, problem: Problem) -> Problem:
        if problem.place is not None or problem.key is None:
            return replace(problem, source_name=self.name)
        path = tuple(problem.key.split("."))
        while path not in self.places:
            path = path[:-1]
        return replace(problem, place=self.places[path], source_name=self.name)


def read_job(
    path: Path | str, *, overrides: Sequence[str] = (), environ: Mapping[str, str]
) -> JobSpec:
    """The job described by the file `path`, with the `--set` arguments `overrides` laid over it.

    `environ` is what `${VAR}` is filled in from. Raises SpecError with everything that is wrong.
    """
    return open_job(path, overrides=overrides, environ=environ).spec


def open_job(
    path: Path | str, *, overrides: Sequence[str] = (), environ: Mapping[str, str]
) -> JobFile:
    """As `read_job`, and keeps where everything stands."""
    return parse_job(text_of(Path(path)), str(path), overrides=overrides, environ=environ)


def parse_job(
    text: str, name: str, *, overrides: Sequence[str] = (), environ: Mapping[str, str]
) -> JobFile:
    """As `open_job`, from the text of a file that messages call `name`."""
    source = Source(name, text)
    laid_over, problems = read_overrides(overrides)
    root, duplicates = nodes.parse(source)
    problems += duplicates
    if root is None or (isinstance(root, nodes.Scalar) and root.is_null):
        raise SpecError([Problem("empty", "the file is empty", source.place(0, 1), help=_START)])
    if not isinstance(root, nodes.Mapping):
        raise SpecError(
            [Problem("value", "a job.yaml is a mapping of keys", root.place, help=_START)]
        )
    root, unplaced = apply(root, laid_over)
    root, unset = filled_in(root, environ)
    problems += [*unplaced, *unset]
    converter = Converter(Expander(environ), {"launchers": _own_launchers(environ)})
    more = False
    try:
        spec = converter.convert(root, type_of(JobSpec))
    except TooMany:
        spec, more = BAD, True
    problems += converter.problems
    if isinstance(spec, JobSpec):
        file = JobFile(spec, name, converter.places)
        whole = _whole(spec)
        problems += file.placed(SpecError(whole)).problems if whole else []
        if not problems:
            return file
    raise SpecError(sorted(problems, key=_order), more=more)


def _whole(spec: JobSpec) -> list[Problem]:
    """What is wrong with values that are each right by themselves."""
    if spec.train is None and spec.command is None:
        return [
            Problem(
                "missing-key",
                "neither `train` nor `command` is given",
                help="clusterseg schema train, clusterseg schema command",
                key="",
            )
        ]
    if spec.train is None:
        return []
    problems = []
    if spec.command is not None:
        problems.append(
            Problem(
                "conflict",
                "`train` and `command` are both given",
                note="a job runs one of them",
                help="remove one of them",
                key="command",
            )
        )
    problems += augmentation_problems(spec.train.augment)
    if spec.train.data.coarse and spec.train.data.format != "cityscapes":
        problems.append(
            Problem(
                "conflict",
                f"`{spec.train.data.format}` has no coarse annotations",
                note="cityscapes has",
                help="leave `coarse` out",
                key="train.data.coarse",
            )
        )
    if spec.train.freeze_batch_norm and spec.train.sync_batch_norm:
        problems.append(
            Problem(
                "conflict",
                "`freeze_batch_norm` and `sync_batch_norm` are both set",
                note="a frozen batch norm has no batch statistics to share",
                help="remove one of them",
                key="train.sync_batch_norm",
            )
        )
    weights, classes = spec.train.loss.class_weights, spec.train.model.classes
    if isinstance(weights, tuple) and classes is not None and len(weights) != classes:
        problems.append(
            Problem(
                "conflict",
                f"{len(weights)} class weights for {classes} classes",
                note=f"expected {classes} numbers",
                help="train.model.classes and train.loss.class_weights must agree",
                key="train.loss.class_weights",
            )
        )
    lowest = spec.train.schedule.options.get("min_learning_rate", 0)
    highest = spec.train.optimizer.learning_rate
    if lowest > highest:
        problems.append(
            Problem(
                "conflict",
                f"a lowest learning rate of {lowest:g} and a highest of {highest:g}",
                note=f"expected at most {highest:g}",
                help="train.optimizer.learning_rate is the highest one",
                key="train.schedule.min_learning_rate",
            )
        )
    warmup, epochs = spec.train.schedule.warmup_epochs, spec.train.epochs
    if warmup > epochs:
        problems.append(
            Problem(
                "conflict",
                f"`train.schedule.warmup_epochs` is {warmup:g}, `train.epochs` {epochs}: the "
                "training would end before its warm-up",
                note=f"expected at most {epochs}",
                help="train for more epochs, or warm up for fewer (a part of one is 0.5)",
                key="train.schedule.warmup_epochs",
            )
        )
    divisor = MODELS[spec.train.model.name].divides_size
    size = spec.train.data.size
    if size is not None and any(length % divisor for length in size):
        fitting = [max(1, round(length / divisor)) * divisor for length in size]
        problems.append(
            Problem(
                "conflict",
                f"{spec.train.model.name} can't take pictures of {size[0]}x{size[1]}",
                note=f"expected height and width divisible by {divisor}, such as {fitting}",
                help="give another size: pictures are resized to it",
                key="train.data.size",
            )
        )
    return problems


def text_of(path: Path) -> str:
    """The file's text, without a byte order mark; raises SpecError if it is none."""

    def refuse(code: str, message: str, help: str = "") -> SpecError:
        return SpecError([Problem(code, message, help=help, source_name=str(path))])

    try:
        with path.open("rb") as file:
            # Not `read()`: the path may be a device or a pipe without an end.
            data = file.read(LARGEST + 1)
    except IsADirectoryError:
        raise refuse("unreadable", "this is a folder", "name the file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) else None
        raise refuse("unreadable", f"the file can't be read: {why or error}") from None
    if len(data) > LARGEST:
        raise refuse("too-large", f"the file is larger than {LARGEST // 2**20} MiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refuse("encoding", "the file is UTF-16, not UTF-8", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        source = Source(str(path), data.decode("utf-8", "replace"))
        problem = Problem(
            "encoding",
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            source.place(len(before), len(before) + 1),
            help="save the file as UTF-8",
        )
        raise SpecError([problem]) from None


def _own_launchers(environ: Mapping[str, str]) -> list[str]:
    """Launchers that the user has added as files."""
    try:
        own = search_path("launchers", environ)[0]
        return sorted(file.stem for file in own.glob("*.yaml") if file.stem not in LAUNCHERS)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return []


def _order(problem: Problem) -> tuple[bool, int, int]:
    """The file's problems first, from top to bottom, then those of --set."""
    place = problem.place
    if place is None:
        return (False, 0, 0)
    return (place.source.argument, place.line + place.source.first_line, place.column)
