"""Recorded episodes of a task, told apart by a hash: every model of a comparison learns from the same bytes.

Half of the episodes are random, with actions that are held for a while; the other half a noisy policy plays that sees
the true state. Episodes, not rows, are divided into training, validation and test.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldvae.agents import RandomAgent
from worldvae.data.replay import MIN_SLICE
from worldvae.envs import EnvConfig, WorldEnv, make_from
from worldvae.errors import UserError
from worldvae.planning import uniform_actions
from worldvae.seeds import check_seed, episode_seed, stream
from worldvae.studies.true_worlds import TrueWorld, true_world
from worldvae.system.json_file import plain, write_json
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

StatePolicy = Callable[[Float[Tensor, "batch state"], torch.Generator], Float[Tensor, "batch action"]]
"""From true states (float64) and a source of randomness to action vectors."""

RECORDED = 2**30
"""The lane of the seeds of recorded episodes: no training and no evaluation plays them."""

PERSISTENCE = 0.8
"""Probability that a random action is held for one more decision: five decisions on average."""

SPREAD, CHANCE = 0.3, 0.1
"""Noise of the default policy: its standard deviation on continuous entries, and the share of uniform actions."""

FORMAT = 1
LEAST_EPISODES = 6
PARTS = ("train", "validation", "test")
_TENSORS, _SETTINGS = "episodes.safetensors", "episodes.json"


@dataclass(frozen=True)
class HeldOut:
    """Whole episodes side by side; what follows the end of a shorter one is zeros.

    Attributes:
        rows: `[episode, time]`.
        truth: the true state of every row.
        lengths: rows of every episode.
    """

    rows: Batch
    truth: Float[Tensor, "episode time truth"]
    lengths: Int64[Tensor, " episode"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """Recorded episodes: their rows one after another, those of training first, then validation, then test.

    Attributes:
        rows: in the row convention, `[row]`; frames are bytes, and the last action of an episode is zeros.
        truth: the true state of every row, as `TrueWorld.truth` shows it.
        lengths: rows of every episode.
        counts: number of episodes for training, validation and test.
        noisy: which episodes the noisy policy played.
        settings: what was recorded: environment, number of episodes, seed, names of the entries of `truth`.
    """

    rows: Batch
    truth: Float[Tensor, "row truth"]
    lengths: Int64[Tensor, " episode"]
    counts: Int64[Tensor, " 3"]
    noisy: Int64[Tensor, " episode"]
    settings: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        own = {name: getattr(self, name) for name in ("truth", "lengths", "counts", "noisy")}
        return self.rows.tensors() | own

    @property
    def digest(self) -> str:
        """SHA-256 of the settings and of all bytes, names, types and shapes: equal for equal data only."""
        found = hashlib.sha256(json.dumps(plain(self.settings), sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    @property
    def observation_layout(self) -> ObservationLayout:
        """Shapes of the observations."""
        pixels, vector = self.rows.observation.pixels, self.rows.observation.vector
        shape = None if pixels is None else (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))
        return ObservationLayout(shape, None if vector is None else vector.shape[1])

    @property
    def action_layout(self) -> ActionLayout:
        """Shape of the action vector."""
        action = self.settings["action"]
        return ActionLayout(action["continuous"], tuple(action["categorical"]))

    @property
    def env(self) -> EnvConfig:
        """The task."""
        kept = dict(self.settings["env"])
        return EnvConfig(**kept | {"size": tuple(kept["size"])})

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Batch:
        """Draw sequences `[batch, length]` of training rows, by the convention of `Replay.sample`; there is no padding.

        A sequence begins at a row drawn uniformly, or earlier if needed to contain `min(length, MIN_SLICE, its
        episode)` rows of its episode. Where the episode ends before the sequence does, the first row of the next
        training episode follows. `is_first` marks the first row of each such slice and no other.
        """
        return self.rows_at(*self._slices(batch, length, generator))

    def rows_at(self, index: Int64[Tensor, "*shape"], begins: Tensor) -> Batch:
        """Return rows by their numbers, with `is_first` where `begins`."""
        rows = self.rows.map(lambda x: x.index_select(0, index.flatten()).unflatten(0, index.shape))
        return Batch(rows.observation, rows.action, rows.reward, rows.termination, begins)

    def held_out(self, part: str = "test") -> HeldOut:
        """Return the episodes of a part whole: "test", "validation" or "train".

        Raises:
            ValueError: If there is no such part.
        """
        if part not in PARTS:
            raise ValueError(f"part={part!r} is none of {', '.join(PARTS)}")
        number = PARTS.index(part)
        before, after = int(self.counts[:number].sum()), int(self.counts[: number + 1].sum())
        lengths = self.lengths[before:after]
        starts = self.lengths.cumsum(0)[before:after] - lengths
        time = torch.arange(int(lengths.max()))
        inside = time < lengths[:, None]
        index = (starts[:, None] + time).clamp(max=len(self.truth) - 1)

        def padded(x: Tensor) -> Tensor:
            found: Tensor = x.index_select(0, index.flatten()).unflatten(0, index.shape)
            found[~inside] = 0
            return found

        return HeldOut(self.rows.map(padded), padded(self.truth), lengths)

    def save(self, folder: Path) -> None:
        """Write the episodes as safetensors and JSON; a reader finds whole files, and a digest that fits them.

        Raises:
            UserError: If they cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f"{_TENSORS}.part"
            save_file({name: tensor.contiguous() for name, tensor in self.tensors().items()}, part)
            part.replace(folder / _TENSORS)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write recorded episodes to {folder} ({error}): choose another folder.") from error
        write_json(folder / _SETTINGS, {"digest": self.digest, "settings": self.settings})

    def _slices(self, batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the numbers of rows `[batch, length]`, and where slices begin."""
        training = self.lengths[: int(self.counts[0])]
        stops = training.cumsum(0)
        total = int(stops[-1])
        episode_of = torch.repeat_interleave(torch.arange(len(training)), training)
        position = torch.randint(total, (batch,), generator=generator)
        episode = episode_of[position]
        room = torch.minimum(training[episode], torch.tensor(min(length, MIN_SLICE)))
        now = torch.minimum(position, stops[episode] - room)
        index, begins = list[Tensor](), list[Tensor]()
        first = torch.ones(batch, dtype=torch.bool)
        for _ in range(length):
            index.append(now)
            begins.append(first)
            first = now + 1 == stops[episode_of[now]]
            now = (now + 1) % total
        return torch.stack(index, dim=1), torch.stack(begins, dim=1)


def load(folder: Path) -> Recorded:
    """Read what `Recorded.save` wrote.

    Raises:
        UserError: If the files are missing or damaged, or are not those that were written together.
    """
    try:
        kept = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(folder / _TENSORS)
        own = {name: tensors.pop(name) for name in ("truth", "lengths", "counts", "noisy")}
        found = Recorded(Batch.from_tensors(tensors), **own, settings=kept["settings"])
        digest = kept["digest"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} holds no recorded episodes that can be read ({error}): record them anew.") from error
    if found.digest != digest:
        raise UserError(
            f"the recorded episodes in {folder} have the digest {found.digest[:12]}, and {_SETTINGS} expects "
            f"{digest[:12]}: the files were changed; record them anew."
        )
    return found


def with_noise(world: TrueWorld, layout: ActionLayout, spread: float = SPREAD, chance: float = CHANCE) -> StatePolicy:
    """Return a world's expert with noise: Gaussian on continuous entries, and now and then a uniform action.

    Args:
        world: whose expert.
        layout: shape of the action vector.
        spread: standard deviation of the Gaussian.
        chance: probability of a uniform action.
    """

    def act(state: Float[Tensor, "batch state"], generator: torch.Generator) -> Float[Tensor, "batch action"]:
        action = world.expert(state).float()
        box, rest = action[:, : layout.continuous], action[:, layout.continuous :]
        box = (box + spread * torch.randn(box.shape, generator=generator)).clamp(-1, 1)
        uniform = uniform_actions(layout, (len(state),), action.device, generator)
        random = torch.rand(len(state), 1, generator=generator) < chance
        return torch.where(random, uniform, torch.cat([box, rest], dim=-1))

    return act


def record_episodes(
    env: EnvConfig, episodes: int, seed: int = 0, noisy_policy: StatePolicy | None = None, name: str = "expert"
) -> Recorded:
    """Record episodes, half of them with random held actions and half with a noisy policy.

    The same arguments give the same bytes. A tenth of either half is for validation, another tenth for test (at least
    one episode of each), the rest for training.

    Args:
        env: the task, one of `true_worlds.TRUE_WORLDS`.
        episodes: how many.
        seed: of the episodes, of the policies and of the division.
        noisy_policy: the policy of the second half; default: `with_noise`, the task's expert with noise.
        name: of that policy, which is among the settings and thus in the digest.

    Raises:
        UserError: If there are fewer than 6 episodes, the environment fails, or its dynamics are not known.
    """
    check_seed(seed)
    if episodes < LEAST_EPISODES:
        raise UserError(f"episodes={episodes} are too few to divide: record at least {LEAST_EPISODES}.")
    instance = make_from(env)
    try:
        world, layout = true_world(env, instance), instance.action_layout
        policy = noisy_policy or with_noise(world, layout)
        played = [_play(instance, world, policy if i % 2 else None, seed, i) for i in range(episodes)]
    finally:
        instance.close()
    order, counts = _divide(episodes, seed)
    rows = Batch.cat([played[i][0] for i in order], dim=0)
    settings = {
        "format": FORMAT,
        "env": asdict(env) | {"size": list(env.size)},
        "episodes": episodes,
        "seed": seed,
        "policies": ["random", name if noisy_policy is not None else f"expert, noise {SPREAD}, uniform {CHANCE}"],
        "persistence": PERSISTENCE,
        "truth": list(world.names),
        "action": {"continuous": layout.continuous, "categorical": list(layout.categorical)},
    }
    return Recorded(
        rows,
        torch.cat([played[i][1] for i in order]),
        torch.tensor([len(played[i][1]) for i in order]),
        torch.tensor(counts),
        torch.tensor([i % 2 for i in order]),
        json.loads(json.dumps(settings)),
    )


def _divide(episodes: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the episodes in the order of their parts, and how many each part has; both policies are in every part."""
    generator = torch.Generator().manual_seed(stream(seed, "division"))
    parts: list[list[int]] = [[], [], []]
    for kind in (0, 1):
        mine = torch.arange(kind, episodes, 2)
        mine = mine[torch.randperm(len(mine), generator=generator)]
        tenth = max(1, len(mine) // 10)
        for part, some in zip(parts, mine.split([len(mine) - 2 * tenth, tenth, tenth]), strict=True):
            part += some.tolist()
    return [i for part in parts for i in part], [len(part) for part in parts]


def _play(
    env: WorldEnv, world: TrueWorld, policy: StatePolicy | None, seed: int, episode: int
) -> tuple[Batch, Float[Tensor, "row truth"]]:
    """Play one episode, at random without a policy, and return its rows and the true state of each."""
    generator = torch.Generator().manual_seed(stream(seed, f"episode {episode}"))
    idle, carry = RandomAgent(env.action_layout, PERSISTENCE), None
    observation, _ = env.reset(seed=episode_seed(seed, RECORDED, episode))
    reward, terminated, done, rows, truths = 0.0, False, False, list[Batch](), list[Tensor]()
    while True:
        state, first = world.state(env).unsqueeze(0), torch.tensor([not rows])
        seen = Observation(**{name: torch.from_numpy(np.array(value)) for name, value in observation.items()})
        if done:
            action = torch.zeros(1, env.action_layout.size)
        elif policy is None:
            action, carry = idle.act(seen, first, carry, generator)
        else:
            action = policy(state, generator)
        rows.append(Batch(seen, action[0], torch.tensor(reward), torch.tensor(terminated), first[0]))
        truths.append(world.truth(state)[0].float())
        if done:
            return Batch.stack(rows, dim=0), torch.stack(truths)
        observation, reward, terminated, truncated, _ = env.step(action[0].numpy())
        done = terminated or truncated
