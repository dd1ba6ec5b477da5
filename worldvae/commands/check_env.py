"""`worldvae check-env ID`: can this environment be learned? A few seconds of random play, told in plain words."""

import json
import math
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from worldvae.config import load_config
from worldvae.envs import EnvConfig, WorldEnv, make_from
from worldvae.envs.world_env import DEFAULT_TIME_LIMIT
from worldvae.errors import UserError
from worldvae.planning import uniform_actions
from worldvae.seeds import LARGEST_SEED, check_seed, episode_seed
from worldvae.system.child import Child, Tasks

MIN_FRAMES_PER_SECOND = 100
MAX_REWARD = 100.0
MIN_REWARDED_SHARE = 0.01
MIN_EPISODE_STEPS = 5
MIN_LEVELS = 16
MAX_VECTOR_SIZE = 2000
SECOND_INSTANCE_SECONDS = 60.0


@dataclass(frozen=True)
class EnvReport:
    """The findings of random play in an environment.

    Attributes:
        env_id: The id that was asked for.
        observation: What the world model sees, a sentence.
        action: The action space, a sentence.
        frames_per_second: Steps with their observation, per second, in one process.
        reward_range: Smallest and largest reward of a step.
        episode_length: Mean number of steps of an episode (of the unfinished one if none was finished).
        verdict: The summary, a sentence.
        problems: What may get in the way, and what helps; a sentence or two each.
    """

    env_id: str
    observation: str
    action: str
    frames_per_second: float
    reward_range: tuple[float, float]
    episode_length: float
    verdict: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Play:
    """Records of random play."""

    rewards: np.ndarray
    lengths: np.ndarray
    finished: int
    terminations: int
    seconds: float
    blank: bool
    levels: tuple[int, int]
    still: bool
    repeatable: bool


def check_env(
    env_id: Annotated[str, typer.Argument(help="Any Gymnasium id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, such as obs=state or kwargs.g=9.8.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to play.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of the environment and of the actions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Say in plain words whether an environment can be learned, after a few seconds of random play."""
    report = inspect_env(load_config(EnvConfig, [{"id": env_id}], overrides or ()), seconds, seed)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    console = Console()
    low, high = report.reward_range
    for name, words in (
        ("environment", report.env_id),
        ("observation", report.observation),
        ("action", report.action),
        ("speed", f"{report.frames_per_second:.0f} frames/s in one process"),
        ("reward", f"{low:g} to {high:g} a step"),
        ("episode", f"{report.episode_length:.1f} steps on average"),
    ):
        console.print(f"[bold]{name:12}[/bold]", end="")
        console.print(words, markup=False)
    for problem in report.problems:
        console.print("- " + problem, markup=False)
    console.print(report.verdict, style="bold", markup=False)


def inspect_env(config: EnvConfig, seconds: float = 5.0, seed: int = 0) -> EnvReport:
    """Play random episodes of the environment for about `seconds` and return a report.

    Raises:
        UserError: If the environment cannot be made, or breaks its own promises while it is played.
    """
    check_seed(seed)
    if not 0 <= seconds < math.inf:
        raise UserError(f"seconds={seconds} is not a time to play: take a number such as 5.")
    second = None if config.alone else _second_instance(config)
    env = make_from(config)
    try:
        play = _play(env, seconds, seed)
    finally:
        env.close()
    speed = len(play.rewards) / play.seconds
    problems = [*_frame_problems(env, play), *_reward_problems(play), *_episode_problems(env, play)]
    if not play.repeatable:
        problems.append(
            "the same seed and actions gave different episodes: results will not repeat exactly, and if what it shows "
            "or pays depends on earlier episodes (as with statistics of its own), evaluations see another world."
        )
    if second is not None:
        problems.append(
            f"a process cannot hold two instances of it ({second.rstrip('.')}): train with env.alone=true, which "
            "gives each one a process of its own."
        )
    if env.ignored:
        problems.append(f"the world model will not see {', '.join(env.ignored)}: kinds of space it cannot read.")
    if speed < MIN_FRAMES_PER_SECOND:
        problems.append(
            f"it is slow: 10 000 steps take {10_000 / speed / 60:.0f} minutes before anything is learned from them. "
            "Several environments in parallel help, and obs=state, where there is a vector, saves the rendering."
        )
    return EnvReport(
        env_id=config.id,
        observation=_observation(env),
        action=_action(env),
        frames_per_second=round(speed, 1),
        reward_range=(float(play.rewards.min()), float(play.rewards.max())),
        episode_length=float(play.lengths.mean()),
        verdict=_verdict(play, speed, len(problems)),
        problems=tuple(problems),
    )


def _two_instances(opened: ExitStack, config: EnvConfig) -> Tasks:
    """Make an instance, in a process that later makes a second one."""

    def begin() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the instance that is played warns of the same
            env = make_from(config)
            opened.callback(env.close)
            env.reset(seed=0)

    begin()
    return {"again": lambda _: begin()}


def _second_instance(config: EnvConfig) -> str | None:
    """Return why a process cannot hold two instances, None if it can; tried in a process that may crash."""
    child = Child(_two_instances, (config,), "a process with two instances", "one at a time is possible.")
    try:
        try:
            child.wait()
        except (UserError, RuntimeError):
            return None  # a single one fails, too: playing it will say why
        child.send("again")
        child.wait(SECOND_INSTANCE_SECONDS)
    except (UserError, RuntimeError) as error:
        return (str(error).splitlines() or [""])[-1]
    finally:
        child.close()
    return None


def _play(env: WorldEnv, seconds: float, seed: int) -> _Play:
    """Play until the time is up, at least 20 steps."""
    generator = torch.Generator().manual_seed(seed)
    repeatable = _repeatable(env, episode_seed(seed, 0, 0), generator)
    _try_largest_seed(env)
    rewards: list[float] = []
    lengths: list[int] = []
    terminations, length, still = 0, 0, True
    blank = env.observation_layout.pixels is not None
    darkest, brightest = (255, 0) if blank else (0, 255)
    observation, _ = env.reset(seed=episode_seed(seed, 0, 0))
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(rewards) < 20:
        before = observation
        action = uniform_actions(env.action_layout, (), torch.device("cpu"), generator).numpy()
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        length += 1
        if blank or brightest - darkest < MIN_LEVELS:
            low, high = int(observation["pixels"].min()), int(observation["pixels"].max())
            blank = blank and low == high
            darkest, brightest = min(darkest, low), max(brightest, high)
        still = still and _equal(before, observation)
        if terminated or truncated:
            lengths.append(length)
            terminations += terminated
            length = 0
            observation, _ = env.reset(seed=episode_seed(seed, 0, len(lengths)))
    elapsed = time.perf_counter() - began
    return _Play(
        rewards=np.array(rewards),
        lengths=np.array(lengths or [length]),
        finished=len(lengths),
        terminations=terminations,
        seconds=elapsed,
        blank=blank,
        levels=(darkest, brightest),
        still=still,
        repeatable=repeatable,
    )


def _try_largest_seed(env: WorldEnv) -> None:
    try:
        env.reset(seed=LARGEST_SEED)
    except UserError as error:
        raise UserError(f"{error} (The seed was {LARGEST_SEED}: those of episodes are from 0 to that.)") from error


def _repeatable(env: WorldEnv, seed: int, generator: torch.Generator, steps: int = 20) -> bool:
    """Return whether two episodes with the same seed and actions are the same."""
    actions = uniform_actions(env.action_layout, (steps,), torch.device("cpu"), generator).numpy()
    records = []
    for _ in range(2):
        observation, _ = env.reset(seed=seed)
        record: list[tuple[dict[str, np.ndarray], float]] = [(observation, 0.0)]
        for action in actions:
            observation, reward, terminated, truncated, _ = env.step(action)
            record.append((observation, reward))
            if terminated or truncated:
                break
        records.append(record)
    first, second = records
    return len(first) == len(second) and all(
        reward == again and _equal(observation, other)
        for (observation, reward), (other, again) in zip(first, second, strict=True)
    )


def _equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one)


def _frame_problems(env: WorldEnv, play: _Play) -> list[str]:
    if play.blank:
        return ["every frame is blank (one colour): rendering does not work here, or needs other settings."]
    if play.still:
        return ["the observation never changed within an episode: there is nothing to learn from."]
    problems = []
    darkest, brightest = play.levels
    if brightest - darkest < MIN_LEVELS:
        problems.append(
            f"frames hold only the grey levels {darkest} to {brightest} of 0 to 255, so that little can be seen"
            + (": give the space of its image the bounds that the images really have." if env.view.native else ".")
        )
    if (env.observation_layout.vector or 0) > MAX_VECTOR_SIZE:
        problems.append(
            f"the vector has {env.observation_layout.vector} numbers, most of them from {env.widest}: images become "
            "frames if their Box has one finite lower and upper bound and a shape such as (height, width, channels); "
            "of other entries, leave out what is not needed."
        )
    return problems


def _reward_problems(play: _Play) -> list[str]:
    rewarded = int((play.rewards != 0).sum())
    largest = float(np.abs(play.rewards).max())
    problems = []
    if rewarded == 0:
        problems.append(
            f"random play never found a reward in {len(play.rewards)} steps: the world can be learned, but not what "
            "is good in it. More exploration, a shaped reward or recorded episodes help."
        )
    elif rewarded < MIN_REWARDED_SHARE * len(play.rewards):
        problems.append(f"rewards are sparse ({rewarded} in {len(play.rewards)} random steps): plan for more steps.")
    elif play.rewards.min() == play.rewards.max() and play.terminations == 0:
        problems.append(
            f"every step earned {play.rewards[0]:g} and no episode terminated: random play never saw one action do "
            "better than another. More exploration, a shaped reward or recorded episodes help."
        )
    if largest > MAX_REWARD:
        problems.append(f"rewards reach {largest:g} in size: scale them to about 1 to 10.")
    return problems


def _episode_problems(env: WorldEnv, play: _Play) -> list[str]:
    problems = []
    if play.lengths.mean() < MIN_EPISODE_STEPS:
        problems.append(f"episodes end after {play.lengths.mean():.1f} steps: there is little to look ahead to.")
    cut_off = bool((play.lengths * env.action_repeat >= env.time_limit).any())
    if not env.has_own_limit and (cut_off or not play.finished):
        problems.append(
            f"it has no time limit: episodes are cut off after {DEFAULT_TIME_LIMIT} steps; set one with time_limit=N."
        )
    return problems


def _observation(env: WorldEnv) -> str:
    parts = []
    if env.observation_layout.pixels is not None:
        channels, height, width = env.observation_layout.pixels
        source = "the environment's own image" if env.view.native else "its rendering"
        parts.append(f"frames of {channels}×{height}×{width} (channels, height, width) from {source}")
    if env.observation_layout.vector is not None:
        parts.append(f"a vector of {env.observation_layout.vector} numbers")
    return " and ".join(parts) + "."


def _action(env: WorldEnv) -> str:
    layout, parts = env.action_layout, []
    if layout.continuous:
        parts.append(f"{layout.continuous} continuous number{'s' * (layout.continuous > 1)} in [-1, 1]")
    if layout.categorical:
        sizes = ", ".join(str(n) for n in layout.categorical)
        parts.append(f"{len(layout.categorical)} choice{'s' * (len(layout.categorical) > 1)} among {sizes}")
    repeat = f", each repeated {env.action_repeat} times" if env.action_repeat > 1 else ""
    return " and ".join(parts) + repeat + "."


def _verdict(play: _Play, speed: float, problems: int) -> str:
    seen = f"{len(play.rewards)} random steps; 10 000 steps take about {10_000 / speed:.0f} s to play"
    if play.blank or play.still:
        return f"Cannot be learned as it is ({seen})."
    if problems:
        return f"Can be learned, with {problems} thing{'s' * (problems > 1)} to look at first ({seen})."
    return f"Can be learned: nothing speaks against it ({seen})."
