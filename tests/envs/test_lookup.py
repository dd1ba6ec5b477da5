"""From an id to an environment: the user's own modules, foreign spaces, and one-sentence errors for everything else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces

from worldvae.envs import make, wrap
from worldvae.errors import UserError

MODULE = """
import gymnasium as gym, numpy as np
class Walk(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype("f"), float(action), False, False, {}
gym.register("My/Walk-v0", Walk, max_episode_steps=20)
"""


class Foreign:
    """A space from a package that Gymnasium has replaced."""

    def __repr__(self) -> str:
        return "Box([0.], [1.], (1,), float32)"


Foreign.__name__ = Foreign.__qualname__ = "Box"
Foreign.__module__ = "gym.spaces.box"


class Given(gym.Env):
    """An environment with the given spaces."""

    def __init__(self, **spaces_: Any) -> None:
        self.__dict__.update(spaces_)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(gym.registry, "Given-v0", gym.envs.registration.EnvSpec("Given-v0", Given))
    return "Given-v0"


BOX, DISCRETE = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)
OLD = r"_space of Given.*, Box\(.*, float32\), is of the class gym\.spaces\.box\.Box, .*`import gymnasium as gym`"


@pytest.mark.parametrize(
    ("spaces_", "words"),
    [
        ({"observation_space": Foreign(), "action_space": DISCRETE}, OLD),
        ({"observation_space": BOX, "action_space": Foreign()}, OLD),
        ({"observation_space": spaces.Tuple([BOX]), "action_space": Foreign()}, OLD),
        ({"observation_space": None, "action_space": DISCRETE}, "has no observation_space"),
        (
            {"observation_space": 3, "action_space": DISCRETE},
            "_space of .*, 3, is of the class builtins.int, .*take Box",
        ),
        ({"action_space": DISCRETE}, "has no observation_space: set self.observation_space"),
        ({"observation_space": BOX}, "has no action_space"),
    ],
)
def test_spaces_that_are_none_are_named(given: str, spaces_: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(given, **spaces_)
    with pytest.raises(UserError, match=words):
        wrap(Given(**spaces_))


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("./my_env.py:My/Walk-v0", "begins with the path of a file, .*write my_env:My/Walk-v0, .* holds my_env.py"),
        ("my_env.py:My/Walk-v0", "write my_env:My/Walk-v0"),
        ("folder/my_env:My/Walk-v0", "write my_env:My/Walk-v0"),
        ("..envs.my_env:My/Walk-v0", "begins with the path of a file"),
        ("my_env:My/Walk-v0", "No module named 'my_env': install it, or run worldvae in the folder"),
    ],
)
def test_files_and_modules_that_are_not_found_are_one_sentence(id: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(id)


WRONG = [
    ("make('CartPole-v1', size=64)", "size=64 is not a height and a width"),
    ("make('CartPole-v1', size=None)", "size=None is not a height"),
    ("make('CartPole-v1', size=(64, '64'))", "size=(64, '64') is not a height"),
    ("make('CartPole-v1', size=(64.0, 64))", "size=(64.0, 64) is not a height"),
    ("make('CartPole-v1', action_repeat='2')", "action_repeat='2' is not"),
    ("make('CartPole-v1', time_limit=2.5)", "time_limit=2.5 is not"),
    ("make('CartPole-v1', obs=None)", "obs=None is not one of"),
    (
        "make(gym.make('CartPole-v1'))",
        "is not the id of an environment, such as 'CartPole-v1': worldvae.envs.wrap takes",
    ),
    ("make(EnvConfig('CartPole-v1'))", "is not the id of an environment"),
    ("make_from(EnvConfig(gym.spec('CartPole-v1')))", "is not the id of an environment"),
    ("wrap('CartPole-v1')", "'CartPole-v1' (builtins.str) is not a gymnasium.Env"),
    ("EnvPool(['CartPole-v1'])", "a pool takes EnvConfigs, or functions that make a WorldEnv, and was given 'CartPole"),
]


def test_what_is_of_another_type_is_one_sentence() -> None:
    """In a process that does not check annotations, like a user's."""
    script = f"""
import gymnasium as gym
from worldvae.envs import EnvConfig, EnvPool, make, make_from, wrap
from worldvae.errors import UserError
for call in {[call for call, _ in WRONG]!r}:
    try:
        eval(call)
    except UserError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(WRONG)
    assert [words for (_, words), line in zip(WRONG, said, strict=True) if words not in line] == []


@pytest.mark.parametrize(
    ("text", "words"), [("1 / 0", "ZeroDivisionError"), ("exit(0)", "SystemExit: 0"), ("(", "Syn")]
)
def test_a_module_that_fails_is_one_sentence(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_env.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=f"the module of the environment 'failing_env:X-v0' cannot be imported: {words}"
    ):
        make("failing_env:X-v0")


def test_an_environment_that_exits_when_it_is_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make", lambda *_, **__: sys.exit("no licence"))
    with pytest.raises(UserError, match="CartPole-v1 cannot be made: SystemExit: no licence"):
        make("CartPole-v1")


def test_the_command_finds_environments_in_the_working_directory(tmp_path: Path) -> None:
    """Like `python -m worldvae`; a module in the working directory does not hide an installed one."""
    (tmp_path / "my_env.py").write_text(MODULE)
    (tmp_path / "rich.py").write_text("raise ImportError('this is not rich')")
    root = str(Path(__file__).parents[2])
    start = f"import sys; sys.path = [{root!r}, *filter(None, sys.path)]; from worldvae.commands import cli; cli.main()"
    arguments = ["check-env", "my_env:My/Walk-v0", "--seconds", "0", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert '"env_id": "my_env:My/Walk-v0"' in done.stdout
