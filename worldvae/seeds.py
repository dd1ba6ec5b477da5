"""Which seeds there are."""

from worldvae.errors import UserError


def check_seed(seed: int) -> None:
    """Raise unless `seed` is one that torch, NumPy and Gymnasium all take.

    Raises:
        UserError: If it is negative or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"seed={seed} is not a seed: take a whole number from 0 to {2**63 - 1}.")
