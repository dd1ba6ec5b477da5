"""Run `worldvae` by `python -m worldvae`."""

from worldvae.commands.cli import main

main()
