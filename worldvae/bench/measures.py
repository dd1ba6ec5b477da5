"""The figures of `worldvae bench`: medians over repetitions of the code that trains, plans and acts."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from worldvae.agents import PlannerAgent, RandomAgent
from worldvae.bench.limits import Limits
from worldvae.bench.timing import Work, flops, median_seconds
from worldvae.data.replay import Replay
from worldvae.envs import EnvPool
from worldvae.models.world_model import WorldModel
from worldvae.planning import CEMConfig, PlanConfig
from worldvae.runs.run import Run, create
from worldvae.runs.settings import PLANNER_SECTIONS, RunConfig, pick_device
from worldvae.system.allocator import keep_freed_memory
from worldvae.training.behaviour import leave_cores_to, make_behaviour
from worldvae.training.collector import Collector
from worldvae.training.learner import Learner
from worldvae.types import State

DREAMS, DREAM_STEPS = 1024, 15
REPLAY_BYTES = 2**27


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        name: its key in the JSON object, "section.key".
        words: description of what was measured.
        value: the figure.
        unit: unit of the figure.
        share: share of the machine's measured peak rate; None if no peak rate applies.
    """

    name: str
    words: str
    value: float
    unit: str
    share: float | None = None


def imagination(run: Run, states: State, generator: torch.Generator) -> Work:
    """Return the work of imagining `DREAMS` dreams of `DREAM_STEPS` steps with a run's actor, from states `[batch]`."""
    model, actor = run.model, run.actor_critic.actor
    starts = states[torch.arange(DREAMS, device=run.device) % states.size]

    def work() -> None:
        with torch.no_grad():
            model.imagine(starts, lambda state: actor(state.features).draw(generator), DREAM_STEPS, generator)

    return work


class Bench:
    """A model, an actor-critic, a replay with random episodes and an environment of one config.

    Args:
        config: config of the run; its `train.batch` and `train.length` determine the size of an update.
        folder: folder for its replay.
        budget: seconds per figure.
    """

    def __init__(self, config: RunConfig, folder: Path, budget: float = 3.0) -> None:
        keep_freed_memory()
        self.config, self.budget = config, budget
        self.device = pick_device(config.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.draws = torch.Generator().manual_seed(config.seed)
        with ExitStack() as opened:
            self.pool = opened.enter_context(EnvPool([config.env], "sync"))
            layouts = (self.pool.observation_layout, self.pool.action_layout)
            self.run = create(folder, config, *layouts)
            self.replay = Replay(folder / "replay", *layouts, 1, min(config.train.replay_bytes, REPLAY_BYTES))
            collector, uniform = Collector(self.pool, self.replay, config.seed), RandomAgent(layouts[1])
            for _ in range(max(1000, 4 * config.train.length)):
                collector.step(uniform, self.draws)
            opened.pop_all()
        self.learner = Learner(self.run.model, config.optimiser)
        self.behaviour = make_behaviour(self.run, self.generator)
        self.batch = self.replay.sample(config.train.batch, config.train.length, self.draws).to(self.device)
        self.run.model.calibrate(self.batch.observation, self.batch.reward)
        self.states = self.update()

    def close(self) -> None:
        """Close the environment, and end the processes that were started."""
        self.behaviour.close()
        self.pool.close()

    def update(self) -> State:
        """Make one update of the world model; return its posterior states."""
        states, _ = self.learner.update(self.batch, self.generator)
        return states

    def full_update(self) -> None:
        """Make one update of the world model and one of the actor-critic, as in training."""
        with leave_cores_to(self.behaviour):
            self.behaviour.update(self.update().flatten(), 0.0)

    def plain_update(self) -> None:
        """Make both updates one after the other, in this process."""
        self.run.actor_critic.update(self.update().flatten(), self.generator)

    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part."""
        parts: dict[str, WorldModel | torch.nn.Module] = {
            "world model": self.run.model,
            "actor": self.run.actor_critic.actor,
            "critic": self.run.actor_critic.critic,
        }
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def chosen(self) -> dict[str, str]:
        """Return the choices made for this machine: the precision, and in which process behaviour learns."""
        return {"precision": self.run.model.precision, "behaviour": self.behaviour.kind}

    def trace(self, path: Path) -> None:
        """Write a trace of one full update, for a browser's trace viewer."""
        self.plain_update()
        if self.device.type == "cpu":
            # The profiler's records would be allocated between the tensors of the update and make the heap grow, page
            # by page, during the measured update. So it grows now.
            torch.ones(int(self._peak()) // 4)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        with torch.profiler.profile(activities=activities) as profiler:
            self.plain_update()
        profiler.export_chrome_trace(str(path))

    def measures(self, limits: Limits) -> Iterator[Measure]:
        """Yield every figure, in the order of the table."""
        yield from self._training(limits)
        yield from self._imagining(limits)
        yield from self._planning(limits)
        yield from self._acting()
        yield from self._data(limits)
        yield Measure("memory.peak_mb", "largest memory of this process so far", self._peak() / 1e6, "MB")

    def _seconds(self, work: Callable[[], object]) -> float:
        return median_seconds(work, self.device, self.budget)

    def _peak_rate(self, limits: Limits) -> float:
        """Return the peak rate for the precision that the model computes in."""
        return limits.matmul[self.run.model.precision]

    def _training(self, limits: Limits) -> Iterator[Measure]:
        rows = self.config.train.batch * self.config.train.length
        dreams = min(rows, self.config.actor_critic.starts or rows)
        shape = f"{self.config.train.batch} x {self.config.train.length} rows"
        for key, words, work in (
            ("", f"one update of the world model on {shape}", self.update),
            ("full_", f"the same, and one of the actor-critic on {dreams} dreams", self.full_update),
        ):
            # (The operations of another process cannot be counted here.)
            seconds, operations = self._seconds(work), flops(self.plain_update if key else work)
            share = operations / seconds / self._peak_rate(limits)
            yield Measure(f"train.{key}ms_per_update", words, 1e3 * seconds, "ms", share)
            yield Measure(f"train.{key}gflop", "floating-point operations of it", operations / 1e9, "GFLOP")
            if not key:
                yield Measure("train.frames_per_second", "rows that it learns from", rows / seconds, "rows/s")

    def _imagining(self, limits: Limits) -> Iterator[Measure]:
        work = imagination(self.run, self.states.flatten(), self.generator)
        seconds = self._seconds(work)
        share = flops(work) / seconds / self._peak_rate(limits)
        words = f"latent steps of {DREAMS} dreams of {DREAM_STEPS} steps with the policy"
        yield Measure("imagine.steps_per_second", words, DREAMS * DREAM_STEPS / seconds, "steps/s", share)

    def _planning(self, limits: Limits) -> Iterator[Measure]:
        run, start = self.run, self.states.flatten()[:1]
        keep = torch.ones(1, device=self.device)
        configs: dict[str, PlanConfig] = {name: getattr(self.config, name) for name in PLANNER_SECTIONS}
        configs["cem_1000x10x12"] = CEMConfig(candidates=1000, elites=100, iterations=10, horizon=12)
        for name, config in configs.items():
            try:
                agent = PlannerAgent(run.model, config, run.actor_critic.value, actor=run.actor_critic.actor)
            except ValueError:  # a tree search needs discrete actions
                continue
            work = torch.no_grad()(partial(agent.decide, start, keep, None, self.generator, False))
            seconds = self._seconds(work)
            share = flops(work) / seconds / self._peak_rate(limits)
            number = f"{config.breadth} candidate{'s' * (config.breadth > 1)}"
            words = f"one plan: {number}, {config.iterations} iterations, {config.horizon} steps"
            yield Measure(f"plan.{name}", words + ", value" * config.value, 1e3 * seconds, "ms", share)

    def _acting(self) -> Iterator[Measure]:
        model = self.run.model
        frames = self.batch.observation.flatten()
        for number, key in ((1, "encode_ms"), (256, "encode_256_ms")):
            some = frames[torch.arange(number, device=self.device) % self.batch.reward.numel()]
            seconds = self._seconds(torch.no_grad()(partial(model.encode, some)))
            yield Measure(f"infer.{key}", f"encoding {number} observation{'s' * (number > 1)}", 1e3 * seconds, "ms")
        agent, one, first = self.run.agent, frames[:1].to("cpu"), torch.zeros(1, dtype=torch.bool)
        _, carry = agent.act(one, first, None, self.generator)
        seconds = self._seconds(lambda: agent.act(one, first, carry, self.generator))
        yield Measure("infer.decisions_per_second", "decisions of the policy for one environment", 1 / seconds, "1/s")

    def _data(self, limits: Limits) -> Iterator[Measure]:
        train = self.config.train
        out = self.replay.sample(train.batch, train.length, self.draws)
        seconds = self._seconds(lambda: self.replay.sample(train.batch, train.length, self.draws, out))
        rate = train.batch / seconds
        share = rate * train.length * self.replay.row_bytes / limits.copy
        words = f"sequences of {train.length} rows drawn from the replay"
        yield Measure("replay.sequences_per_second", words, rate, "1/s", share)
        action = torch.zeros(1, self.pool.action_layout.size)

        def step() -> None:
            if bool(self.pool.step(action).done.any()):
                self.pool.reset([0])

        seconds = self._seconds(step) / self.config.env.action_repeat
        yield Measure("env.frames_per_second", f"steps of {self.config.env.id} in one process", 1 / seconds, "frames/s")

    def _peak(self) -> float:
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        unit = 1 if sys.platform == "darwin" else 1024  # kilobytes, except on macOS
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
