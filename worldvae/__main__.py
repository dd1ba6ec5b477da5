"""`python -m worldvae` is `worldvae`."""

from worldvae.commands.cli import main

main()
