"""Opens a trained run, for all commands that examine one."""

from collections.abc import Sequence
from pathlib import Path

from worldvae.errors import UserError
from worldvae.runs.run import Run, load
from worldvae.system.allocator import keep_freed_memory


def open_run(folder: Path, settings: Sequence[str], number: int, option: str) -> Run:
    """Return the run in `folder`, with `settings` of planners.

    Args:
        folder: of the run.
        settings: KEY=VALUE, of planners.
        number: of episodes or pairs.
        option: the option that gave the number, for the message.

    Raises:
        UserError: If there is no run, a setting is not one of a planner, the environment is not the run's, or `number`
            is not positive.
    """
    if number < 1:
        raise UserError(f"{option} {number} is not a positive number of {option.removeprefix('--')}.")
    keep_freed_memory()
    run = load(folder)
    run.change_planners(settings)
    run.check_env()
    return run
