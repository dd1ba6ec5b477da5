"""The config loader, on small schemas of its own: merging, conversion, and one clear sentence for every mistake."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae import config
from worldvae.config import config_names, dump_config, find_config, load_config, setting
from worldvae.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    latent: int = 32
    unimix: float = 0.01
    cell: str = setting("gru", choices=["gru", "block_gru"])
    losses: tuple[str, ...] = setting(("kl",), choices=["kl", "mse"])
    layers: tuple[int, ...] = (64, 64)
    size: tuple[int, int] = (64, 64)

    def __post_init__(self) -> None:
        if self.latent < 1:
            raise ValueError(f"latent is {self.latent}: give at least 1.")


@dataclass(frozen=True)
class EnvConfig:
    id: str
    action_repeat: int = 1
    time_limit: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: list[str] = field(default_factory=list)
    pixels: bool = False


@dataclass(frozen=True)
class RunConfig:
    env: EnvConfig
    model: ModelConfig = field(default_factory=lambda: ModelConfig(latent=8))
    teacher: ModelConfig | None = None
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.teacher is not None and self.teacher.latent < self.model.latent:
            raise UserError("the teacher is smaller than the model: raise teacher.latent.")


NEEDED = {"env": {"id": "CartPole-v1"}}


def load(*overrides: str, **sections: Any) -> RunConfig:
    return load_config(RunConfig, [NEEDED, sections], overrides)


def mistake(*overrides: str, **sections: Any) -> str:
    """Return the message of the error; whatever it is, it is one line and none of OmegaConf's."""
    with pytest.raises(UserError) as caught:
        load(*overrides, **sections)
    message = str(caught.value)
    assert "\n" not in message and "full_key" not in message and "object_type" not in message
    return message


def test_defaults_are_those_of_the_dataclass() -> None:
    assert load() == RunConfig(env=EnvConfig("CartPole-v1"), model=ModelConfig(latent=8))


def test_overrides_win_over_files_and_later_files_over_earlier(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("env: {id: A-v0}\nmodel: {latent: 1, unimix: 0.5}\nseed: 1\n")
    second.write_text("model:\n  latent: 2\nseed: 2\n")
    loaded = load_config(RunConfig, [first, second], ["seed=3"])
    assert (loaded.env.id, loaded.model.latent, loaded.model.unimix, loaded.seed) == ("A-v0", 2, 0.5, 3)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_config(RunConfig, [NEEDED, path]) == load()


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("model.layers=[1,2,3]", "layers", (1, 2, 3)),
        ("model.size=[3,4]", "size", (3, 4)),
        ("model.losses=[mse,kl]", "losses", ("mse", "kl")),
        ("model.unimix=1e-3", "unimix", 1e-3),
        ("model.unimix=1", "unimix", 1.0),
        ("model.latent=1e3", "latent", 1000),
        ("model.latent=${seed}1", "latent", 71),
        ("env.time_limit=500", "time_limit", 500),
        ("env.time_limit=null", "time_limit", None),
        ("env.options.a.b=3", "options", {"a": {"b": 3}}),
        ("env.options={x.y: [1, null], z: {}}", "options", {"x.y": [1, None], "z": {}}),
        ("env.wrappers=[a, 1]", "wrappers", ["a", "1"]),
        ("env.pixels=true", "pixels", True),
        ("env.id=ALE/Pong-v5", "id", "ALE/Pong-v5"),
        ("env.id='1e-3'", "id", "1e-3"),
        ("env.id=a=b", "id", "a=b"),
    ],
)
def test_values_become_what_the_annotation_says(override: str, name: str, value: Any) -> None:
    loaded = load("seed=7", override)
    found = getattr(getattr(loaded, override.split(".")[0]), name)
    assert found == value
    assert type(found) is type(value)


def test_an_optional_section_appears_when_one_of_its_settings_is_given() -> None:
    assert load("teacher.latent=64").teacher == ModelConfig(latent=64)
    assert load(teacher={}).teacher == ModelConfig()
    assert load("teacher.latent=64", "teacher=null").teacher is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.latnet=3", "model.latnet does not exist. Did you mean 'model.latent'?"),
        ("modle.latent=3", "modle does not exist. Did you mean 'model'?"),
        ("teacher.latnet=3", "teacher.latnet does not exist. Did you mean 'teacher.latent'?"),
        ("action_repeat=2", "action_repeat does not exist. Did you mean 'env.action_repeat'?"),
        ("xyz=3", "xyz does not exist. Accepted here: env, model, teacher, seed, out."),
        ("env.action_repeat=two", "env.action_repeat is 'two', expected int."),
        ("env.action_repeat=2.5", "env.action_repeat is 2.5, expected int."),
        ("env.action_repeat=", "env.action_repeat is None, expected int."),
        ("env.time_limit=two", "env.time_limit is 'two', expected int or null."),
        ("env.pixels=maybe", "env.pixels is 'maybe', expected bool."),
        ("model.unimix=[1]", "model.unimix is [1], expected float."),
        ("model.layers=[1,x]", "model.layers is [1, 'x'], expected tuple[int, ...]."),
        ("model.layers=3", "model.layers is 3, expected tuple[int, ...]."),
        ("model.layers.0=3", "model.layers.0 does not exist: model.layers is tuple[int, ...], give it as one value."),
        ("seed.x=3", "seed.x does not exist: seed is int, give it as one value."),
        ("model=3", "model is 3, expected a section with latent, unimix, cell, losses, layers, size."),
        ("model.cell=block_gur", "model.cell is 'block_gur', accepted: 'gru', 'block_gru'. Did you mean 'block_gru'?"),
        ("model.losses=[kl,msee]", "model.losses is 'msee', accepted: 'kl', 'mse'. Did you mean 'mse'?"),
        ("model.latent", "the override 'model.latent' is malformed: write it as section.setting=VALUE."),
        ("=3", "the override '=3' is malformed: write it as section.setting=VALUE."),
        ("model..latent=3", "the override 'model..latent=3' is malformed: write it as section.setting=VALUE."),
        ("model.layers=[1", "model.layers is '[1', which is not a complete YAML value: quote it or close it."),
        ("seed=${sed", "seed is '${sed', which is not a complete YAML value: quote it or close it."),
        ("seed=${sed}", "seed: Interpolation key 'sed' not found."),
        ("model.latent=0", "model: latent is 0: give at least 1."),
        ("teacher.latent=2", "the teacher is smaller than the model: raise teacher.latent."),
    ],
)
def test_a_mistake_is_one_sentence(override: str, message: str) -> None:
    assert mistake(override) == message


def test_a_tuple_of_fixed_length_says_so() -> None:
    assert "expected tuple[int, int]." in mistake("model.size=[64]")


def test_mistakes_in_mappings_are_found_too() -> None:
    assert mistake(model={"latnet": 3}) == "model.latnet does not exist. Did you mean 'model.latent'?"
    assert mistake(env={"action_repeat": "two"}) == "env.action_repeat is 'two', expected int."


def test_a_setting_without_default_must_be_given() -> None:
    with pytest.raises(UserError, match=r"^env\.id is missing: give it as env\.id=VALUE or in the YAML file\.$"):
        load_config(RunConfig, [{"env": {}}])
    with pytest.raises(UserError, match=r"^env is missing"):
        load_config(RunConfig, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  latnet: 3\n", "model.latnet does not exist. Did you mean 'model.latent'?"),
        ("model:\n  cell: gru\n bad: [\n", "not valid YAML at line 3"),
        ("seed: 1\nseed: 2\n", "not valid YAML at line 2"),
        ("- 1\n- 2\n", "expected settings as 'name: value', got [1, 2]."),
        ("model: 3\n", "model is 3, expected a section"),
        ("seed: ${x\n", "seed: "),
        ("1: 2\n", "1 does not exist."),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(RunConfig, [path])
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot read the file \(No such file or directory\)"):
        load_config(RunConfig, [tmp_path / "absent.yaml"])
    with pytest.raises(UserError, match=r"cannot read the file \(Is a directory\)"):
        load_config(RunConfig, [tmp_path])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match=r"binary\.yaml: "):
        load_config(RunConfig, [tmp_path / "binary.yaml"])


@settings(deadline=None, max_examples=50)
@given(
    id=st.text(st.characters(codec="utf-8", exclude_categories=["C"]) | st.sampled_from("${}\\?:")).filter(
        "???".__ne__
    ),
    unimix=st.floats(allow_nan=False),
    layers=st.lists(st.integers(-(2**40), 2**40)).map(tuple),
    limit=st.none() | st.integers(),
    options=st.dictionaries(
        st.sampled_from(["a", "b.c", "no"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(0, 1)
        | st.text(st.sampled_from("${}\\? a.1")).map("x".__add__),
    ),
    teacher=st.none() | st.builds(ModelConfig, latent=st.integers(32, 100)),
)
def test_a_dumped_config_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    id: str,
    unimix: float,
    layers: tuple[int, ...],
    limit: int | None,
    options: dict[str, Any],
    teacher: ModelConfig | None,
) -> None:
    env = EnvConfig(id=id, time_limit=limit, options=options, wrappers=[id])
    model = ModelConfig(unimix=unimix, layers=layers, cell="block_gru")
    config = RunConfig(env, model, teacher, out=Path("runs/x"))
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    dump_config(config, path)
    assert load_config(RunConfig, [path]) == config


def written(tmp_path: Path, value: Any) -> EnvConfig:
    path = tmp_path / "config.yaml"
    dump_config(RunConfig(EnvConfig("A-v0", options={"x": value})), path)
    return load_config(RunConfig, [path]).env


@pytest.mark.parametrize(
    "value",
    [
        "${HOME}",
        "${oc.env:HOME}",
        "\\${a}",
        "C:\\${a}\\",
        "$${",
        "1e-3",
        "~",
        "",
        [{"a": ["${b}"]}],
        {1: {"${c}": "${d}"}},
    ],
)
def test_text_survives_being_written(tmp_path: Path, value: Any) -> None:
    assert written(tmp_path, value).options == {"x": value}


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    found = written(tmp_path, {"a": np.float32(0.1), "b": np.int64(3)}).options["x"]
    assert found == {"a": np.float32(0.1), "b": 3} and type(found["a"]) is float


NOTHING_TO_WRITE = [
    (np.zeros((3, 3)), r"env\.options\.x is array\(.*, and the config's file can only hold numbers, text, true"),
    ([len], r"env\.options\.x\.0 is <built-in function len>, and the config's file can only hold"),
    ({None: 1}, r"env\.options\.x is \{None: 1\}, and"),
    (b"ab", r"env\.options\.x is b'ab', and"),
    ("???", r"env\.options\.x is '\?\?\?', and"),
    (
        (1, 2),
        r"env\.options\.x is \(1, 2\), and would be read back from the config's file as \[1, 2\]: give it in that",
    ),
    ([{"a": (1, 2)}], r"env\.options\.x\.0\.a is \(1, 2\), and would be read back"),
    (Path("a"), r"env\.options\.x is PosixPath\('a'\), and would be read back"),
    ("\udc80", "could not be read back from its file"),
    ({1: 1, "1": 2}, "could not be read back from its file"),
]


@pytest.mark.parametrize(("value", "message"), NOTHING_TO_WRITE)
def test_what_cannot_be_read_back_is_refused_before_anything_is_written(
    tmp_path: Path, value: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        written(tmp_path, value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_no_file_could_hold_is_refused_in_mappings() -> None:
    plain = "expected numbers, text, true, false, null, and lists and dicts of these."
    assert mistake(env={"options": {"f": [len]}}) == f"env.options.f is [<built-in function len>], {plain}"
    assert mistake(env={"options": {"f": np.zeros((2, 2))}}) == f"env.options.f is array([[0., 0.], [0., 0.]]), {plain}"
    assert mistake(env={"options": {None: 3}}) == f"env.options.None is 3, {plain}"
    assert load(env={"options": {"size": (1, [(2, 3)])}}).env.options == {"size": [1, [[2, 3]]]}


def test_names_are_looked_up_among_the_packaged_then_among_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "family").mkdir()
    for name in ("tiny.yaml", "both.yaml", "family/both.yaml", "family/hmc.yaml", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(config, "_packaged", lambda: tmp_path)
    assert find_config("tiny") == tmp_path / "tiny.yaml"
    assert find_config("family/hmc") == tmp_path / "family" / "hmc.yaml"
    assert find_config("hmc") is None
    assert find_config("both") == tmp_path / "both.yaml"
    assert find_config(str(tmp_path / "tiny.yaml")) == tmp_path / "tiny.yaml"
    assert find_config("CartPole-v1") is None
    assert find_config(str(tmp_path / "notes.txt")) is None
    assert find_config(str(tmp_path)) is None
    assert config_names() == ["both", "tiny"]
    assert config_names("family") == ["both", "hmc"]


def test_the_packaged_folder_is_that_of_the_library() -> None:
    assert config._packaged() == Path(config.__file__).parent / "configs"


def test_the_choices_of_a_table_grow_with_it() -> None:
    table = {"gru": 1}

    @dataclass(frozen=True)
    class Schema:
        cell: str = setting("gru", choices=table)

    with pytest.raises(UserError, match="cell is 'lstm', accepted: 'gru'"):
        load_config(Schema, [{"cell": "lstm"}])
    table["lstm"] = 2
    assert load_config(Schema, [{"cell": "lstm"}]).cell == "lstm"
