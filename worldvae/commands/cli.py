"""The command line: `worldvae train | eval | dream | diagnose | goals | study | bench | check-env`."""

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from worldvae.errors import UserError
from worldvae.system.cores import limit_threads

app = typer.Typer(
    invoke_without_command=True,
    name="worldvae",
    help="Learn a world as a sequential VAE, plan in its latent space, and see its dreams.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        typer.echo(f"worldvae {version('worldvae')}")
        raise typer.Exit


def _register() -> None:
    from worldvae.commands.bench import bench
    from worldvae.commands.check_env import check_env
    from worldvae.commands.diagnose import diagnose
    from worldvae.commands.dream import dream
    from worldvae.commands.eval import eval_
    from worldvae.commands.goals import goals
    from worldvae.commands.study import study
    from worldvae.commands.train import train

    app.command("train")(train)
    app.command("eval")(eval_)
    app.command("dream")(dream)
    app.command("diagnose")(diagnose)
    app.command("goals")(goals)
    app.add_typer(study, name="study")
    app.command("bench")(bench)
    app.command("check-env")(check_env)
    app.command("compare", hidden=True, context_settings={"ignore_unknown_options": True})(_compare)


def _compare(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Name the command that took the place of this one."""
    given = arguments or []
    words = [
        word
        for word, before in zip(given, ["", *given], strict=False)
        if not word.startswith("-") and before[:2] != "--"
    ]
    what = (words or ["CONFIG"])[0]
    new = what if what in ("digits", "linear") else f"online {what}"
    priors = " (--families is now --priors there)" if new == "digits" and "--families" in given else ""
    raise UserError(f"`worldvae compare` is now `worldvae study`: worldvae study {new}{priors}")


_register()


# Typer exports only some of the errors it raises over a wrong command line; this is what they have in common.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def _replace_what_cannot_be_shown() -> None:
    """Let a terminal (or a file) of few characters show "?" for the others, in place of an error at the end of work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not None, and not what a notebook puts in its place
            stream.reconfigure(errors="replace")


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    _replace_what_cannot_be_shown()
    if "" not in sys.path:
        # environments of one's own lie in the working directory; being last, it hides no package that is installed
        sys.path.append("")
    limit_threads()
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="worldvae", standalone_mode=False)
    except UserError as error:
        print(f"worldvae: {error}", file=sys.stderr)
        sys.exit(2)
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        end = "" if message.endswith((".", "?", ")")) else "."
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "worldvae"
        print(f"worldvae: {message}{end} See: {command} --help", file=sys.stderr)
        sys.exit(2)
    sys.exit(code)


if __name__ == "__main__":
    main()
