"""Valid seeds, and independent seeds derived from one."""

import zlib

import numpy as np

from worldvae.errors import UserError

MASK_64 = 2**64 - 1

HELD_OUT = 2**31
"""The lane whose episodes are used by evaluations and never by training."""

LARGEST_SEED = 2**31 - 1
"""Largest seed of an episode: emulators and engines store seeds as signed integers of 32 bits."""


def check_seed(seed: int) -> None:
    """Check that torch, NumPy and Gymnasium all accept `seed` and distinguish it from all other seeds.

    (On a CPU torch uses only the last 32 bits.)

    Raises:
        UserError: If it is negative or has more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is not a seed: take a whole number from 0 to {2**32 - 1}.")


def episode_seed(seed: int, lane: int, episode: int) -> int:
    """Return the environment seed of an episode: different for each run seed, lane and episode."""
    return int(np.random.SeedSequence([seed, lane, episode]).generate_state(1)[0]) & LARGEST_SEED


def stream(seed: int, name: str) -> int:
    """Return the seed of the random numbers called `name` in a run with this seed.

    They are independent of those of any run's own seed, and of those of another name. Adding a large constant would
    not do: on a CPU torch uses only the last 32 bits.
    """
    return mix(seed, zlib.crc32(name.encode()))


def mix(base: int, key: int) -> int:
    """Return a seed of 64 bits in which every bit depends on every bit of `base` and `key`.

    Reference: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 16 (SplitMix64, with
    the finaliser of Stafford's mix 13).
    """
    z = (base + (key + 1) * 0x9E3779B97F4A7C15) & MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
    return z ^ (z >> 31)
