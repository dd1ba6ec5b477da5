"""The command line: `worldvae train | eval | dream | check-env`."""

import os
import sys

import typer

from worldvae.errors import UserError

app = typer.Typer(
    name="worldvae",
    help="Learn a world as a sequential VAE, plan in its latent space, and see its dreams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _register() -> None:
    from worldvae.commands.check_env import check_env
    from worldvae.commands.dream import dream
    from worldvae.commands.eval import eval_
    from worldvae.commands.train import train

    app.command("train")(train)
    app.command("eval")(eval_)
    app.command("dream")(dream)
    app.command("check-env")(check_env)


_register()


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        app()
    except UserError as error:
        print(f"worldvae: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
