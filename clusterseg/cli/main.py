"""`clusterseg`: the group of all commands, each loaded only when it is called.

Summaries stand here so that `--help` imports no command's module: what a command needs (Rich,
Jinja2, TensorFlow) is loaded by that command alone.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import select
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from clusterseg import __version__
from clusterseg.cli import ORDINARY_THRESHOLD
from clusterseg.errors import ClustersegError, ExitCode

# command -> (module below clusterseg.cli, summary). Order is the order of --help, which leaves out
# what has no summary: only launch lines use it.
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("spec_commands", "Check a job.yaml and explain its solved geometry."),
    "schema": ("spec_commands", "Print the JSON Schema of job.yaml, for editors."),
    "render": ("plan_commands", "Print the plan or script that submit would execute."),
    "submit": ("submit_commands", "Start a job."),
    "sweep": ("sweep_commands", "Start a job with each combination of some values."),
    "lr-find": ("lr_find_commands", "Look for a learning rate, by optimizer."),
    "resume": ("submit_commands", "Go on with a run that stopped, failed or was never started."),
    "list": ("run_commands", "List the runs."),
    "status": ("run_commands", "Show one run: state, attempts, progress, ranks."),
    "logs": ("run_commands", "Show the log of a run, by rank and attempt."),
    "wait": ("run_commands", "Wait for a run to end, and end with its exit code."),
    "cancel": ("run_commands", "Stop a run resumably, or at once with --now."),
    "collect": ("collect_commands", "Merge the ranks' logs into accuracy and throughput."),
    "evaluate": ("evaluate_commands", "Score checkpoints on the validation data."),
    "predict": ("predict_commands", "Predict pictures and videos."),
    "export": ("export_command", "Write a trained network for other programs: ONNX, TFLite, ..."),
    "data": ("data_commands", "Make and check data sets."),
    "doctor": ("doctor_command", "Show the launchers of this machine, and whether they work."),
    "train": ("rank_commands", "Run one rank; started by the launcher."),
    "attempt": ("rank_commands", "Supervise one attempt; started by the batch script."),
    "ranks": ("rank_commands", ""),
}


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are looked up.

    Typer 0.28 carries its own copy of click, so click itself is not imported: that would cost
    as much again.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if COMMANDS[cmd_name][0] == "rank_commands":
            gc.set_threshold(*ORDINARY_THRESHOLD)
        module = importlib.import_module(f"clusterseg.cli.{COMMANDS[cmd_name][0]}")
        group = typer.main.get_group(module.app)
        return group.commands.get(cmd_name) or group

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            shown = [(name, summary) for name, (_, summary) in COMMANDS.items() if summary]
            formatter.write_dl(shown)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train segmentation networks on SLURM and MPI clusters, and get every step back.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"clusterseg {__version__}")
        raise typer.Exit


@app.callback()
def _group(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Train segmentation networks on SLURM and MPI clusters, and get every step back."""


def report(error: ClustersegError, as_json: bool) -> None:
    """Prints an error: one JSON object on stdout under --json, else text on stderr."""
    if as_json:
        import json

        sys.stdout.write(json.dumps({"errors": error.records()}) + "\n")
    else:
        sys.stderr.write(error.render() + "\n")


def main(argv: list[str] | None = None) -> Any:
    """Entry point of the console script; ends the process with an exit code of docs/cli.md."""
    arguments = sys.argv[1:] if argv is None else argv
    # A terminal that is not UTF-8 gets escapes instead of a traceback (stderr does so by itself).
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, prog_name="clusterseg")
    except ClustersegError as error:
        # What follows `--` is the user's command line, not ours.
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        report(error, "--json" in own)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit as ended:
        # The reader of our output went away (`clusterseg list | head`): not an error of ours.
        # Typer makes one of it.
        if isinstance(ended.__context__, BrokenPipeError) and not _has_reader():
            sys.exit(0)
        raise
    finally:
        if not _has_reader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still to be written
        # At its end the interpreter would look through every class for garbage, twice: a sixth
        # of what `submit` takes.
        gc.freeze()


def _has_reader() -> bool:
    """Whether anybody can still read what is written to stdout."""
    poll = select.poll()
    poll.register(1, 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
