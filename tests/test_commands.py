"""The command line: its output, its exit codes, and one-sentence errors without traceback for mistakes of users."""

import json
import shutil
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldvae.commands.cli import main
from worldvae.config import load_config
from worldvae.data.replay import Replay
from worldvae.diagnostics import Effort
from worldvae.envs import make_from
from worldvae.evaluation.play import evaluate
from worldvae.films.open_loop import OpenLoop
from worldvae.runs.checkpoint import FORMAT_VERSION
from worldvae.runs.run import create
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

SMALL = (Path(__file__).parent / "small_run.txt").read_text().split()
QUICK = [*SMALL, "train.eval_episodes=2"]

pytestmark = pytest.mark.usefixtures("unchecked")


def call(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    before = sys.argv
    sys.argv = ["worldvae", *arguments]
    try:
        main()
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.argv = before
    return 0


def complain(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail with the user's exit code, and return the one sentence it prints."""
    capsys.readouterr()
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert lines[-1].startswith("worldvae: "), captured.err
    assert "Traceback" not in captured.err
    return lines[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert call("train", "tiny", "--out", str(folder), "--seed", "3", *QUICK) == 0
    return folder


def test_train_says_where_everything_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "tiny", "--out", str(tmp_path / "run"), *QUICK, "train.steps=200") == 0
    err = capsys.readouterr().err
    assert "Return" in err and "uniform actions" in err and str(tmp_path / "run") in err
    film = next((tmp_path / "run" / "dreams").glob("*.gif"))
    assert str(film) in err
    assert film.read_bytes().startswith(b"GIF89a")


@pytest.mark.parametrize("agent", ["actor", "cem", "guided", "random"])
def test_eval_prints_one_object(run: Path, agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("eval", str(run), "--agent", agent, "--episodes", "3", "--seed", "5", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["env_id"] == "worldvae/Tiny-v0" and out["agent"] == agent and out["episodes"] == 3 and out["seed"] == 5
    assert len(out["returns"]) == 3 and out["mean"] == pytest.approx(np.mean(out["returns"]))
    assert out["ci95"][0] <= out["mean"] <= out["ci95"][1]
    assert all(0 < value <= 50 for value in out["returns"])
    assert 0 < out["random_mean"] < 50 and out["decisions_per_second"] > 0
    assert call("eval", str(run), "--agent", agent, "--episodes", "3", "--seed", "5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["returns"] == out["returns"]


def test_eval_holds_agents_against_the_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = ["eval", str(run), "cem.candidates=8", "--agent", "cem,actor,random", "--episodes", "3", "--seed", "5"]
    assert call(*several, "--json", "--plan-film") == 0
    out = json.loads(capsys.readouterr().out)
    assert [one["agent"] for one in out["agents"]] == ["cem", "actor", "random"] and out["episodes"] == 3
    cem, actor, uniform = out["agents"]
    assert cem["model_steps_per_decision"] == 8 * 2 * 5 and uniform["mean"] == out["random_mean"]
    assert actor["better_than"] == "cem" and actor["difference"] == pytest.approx(actor["mean"] - cem["mean"], abs=1e-4)
    assert actor["difference_ci95"][0] <= actor["difference"] <= actor["difference_ci95"][1]
    assert actor["latency_ms"]["p50"] <= actor["latency_ms"]["p95"] <= actor["latency_ms"]["p99"]
    with Image.open(cem["plan_film"]) as film:
        assert film.n_frames == 3 + 5  # observed rows, and the horizon
    assert call("eval", str(run), "--agent", "random", "--episodes", "3", "--seed", "5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["returns"] == uniform["returns"]
    assert call(*several) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_tree_search_is_for_discrete_actions(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = complain(capsys, "eval", str(run), "--agent", "tree")
    assert "'tree'" in sentence and "discrete" in sentence and "plan with cem, icem" in sentence
    explore = ["--out", str(tmp_path / "run"), *QUICK, "train.explore=tree"]
    assert "plan with cem, icem" in complain(capsys, "train", "tiny", *explore)
    assert not (tmp_path / "run" / "config.yaml").exists()
    env = {"id": "worldvae/TinyDiscrete-v0", "obs": "state"}
    config = load_config(RunConfig, [{"env": env}], [*SMALL, "tree.iterations=4", "train.explore=tree"])
    with closing(make_from(config.env)) as world:
        discrete = create(tmp_path / "run", config, world.observation_layout, world.action_layout)
    found = evaluate(discrete.make_agent("tree"), config.env, 1)
    assert found.agent == "tree" and 0 < found.mean <= 50


def test_diagnose_draws_a_page_of_plots(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("diagnose", str(run), "--episodes", "4", "--no-inference", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["collapse"]["verdict"] in ("healthy", "partly collapsed", "collapsed")
    assert len(found["calibration"]["coverage"]) == 15 and len(found["surprise"]) == 4
    assert found["probe"] is not None  # the model sees only frames; the vector of the same rows is the truth
    with Image.open(found["file"]) as page:
        assert page.width > 1000
    assert json.loads((run / "diagnosis" / "actor_seed0.json").read_text()) == found
    assert found["gaps"] is None and found["left_out"]["gaps"] == "not asked"


def test_diagnose_says_what_better_inference_would_gain(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Effort(slices=2, length=4, steps=2, samples=2, rows=4, refinements=(2,), draws=20)
    monkeypatch.setattr("worldvae.commands.diagnose.EFFORT", few)
    capsys.readouterr()
    assert call("diagnose", str(run), "--episodes", "1") == 0
    printed = capsys.readouterr().out
    assert "by amortisation" in printed and "slices of 4 rows" in printed
    assert "ms, 0 decoded: amortised" in printed and "decoded: HMC, 40 steps" in printed


def test_dream_prints_one_object_and_writes_a_film(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--context", "3", "--horizon", "12", "--episodes", "4", "--out", str(run / "film.png"), "--json"]
    assert call("dream", str(run), *arguments) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["context"], out["horizon"], out["episodes"]) == (3, 12, 4)
    assert len(out["psnr"]) == len(out["psnr_copy_last"]) == len(out["reward_mae"]) == 12
    assert Path(out["file"]).read_bytes().startswith(b"\x89PNG")


def test_a_dream_is_rendered_where_there_is_a_renderer(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--render 2 of a run with model.frames=gaussian" in complain(capsys, "dream", str(run), "--render", "2")
    out = str(tmp_path / "run")
    short = [*QUICK, "train.steps=140", "train.eval_episodes=0"]
    assert call("train", "tiny", "family=diffusion_decoder", "--out", out, *short) == 0
    assert "1 or more strides" in complain(capsys, "dream", out, "--render", "-1")
    found, heights = [], []
    for render in ("0", "2", "2"):
        film = str(tmp_path / f"{render}.png")
        arguments = ["--context", "3", "--horizon", "6", "--episodes", "2", "--out", film, "--json"]
        assert call("dream", out, *arguments, "--render", render) == 0
        found.append(json.loads(capsys.readouterr().out))
        with Image.open(film) as page:
            heights.append(page.height)
    assert "psnr_render" not in found[0] and len(found[1]["psnr_render"]) == 6
    assert found[1] == found[2] and found[1]["psnr_render"] != found[1]["psnr"] == found[0]["psnr"]
    assert heights[1] > heights[0]


def test_psnr_of_known_errors() -> None:
    import torch

    truth = torch.zeros(2, 4, 1, 2, 2)
    truth[:, 3] = 0.5
    dream = truth.clone()
    dream[:, 2] += 0.1
    dream[1, 3] += 100.0  # after the end of that episode
    valid = torch.tensor([[True, True, True], [True, True, False]])
    found = OpenLoop(1, truth, dream, torch.zeros(2, 3), torch.ones(2, 3), valid, True)
    assert found.psnr == pytest.approx([100.0, 20.0, 100.0], abs=1e-3)
    assert found.psnr_copy_last == pytest.approx([100.0, 100.0, 10 * np.log10(4)], abs=1e-3)
    assert found.reward_mae == pytest.approx([1.0, 1.0, 1.0])
    over = OpenLoop(1, truth, dream, torch.zeros(2, 3), torch.ones(2, 3), torch.zeros_like(valid), True)
    assert bool(np.isnan([*over.psnr, *over.psnr_copy_last, *over.reward_mae]).all())


def test_wrong_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'pendulum'" in complain(capsys, "train", "pendulun")
    assert "Did you mean 'CartPole-v1'" in complain(capsys, "train", "CartPol-v1")
    assert "no.yaml" in complain(capsys, "train", "no.yaml")
    assert "takes a name" in complain(capsys, "train")
    out = ["--out", str(tmp_path / "run")]
    assert "Did you mean" in complain(capsys, "train", "tiny", "model.latnet=gaussian", *out)
    assert "train.steps" in complain(capsys, "train", "tiny", "train.steps=many", *out)
    assert "gru" in complain(capsys, "train", "tiny", "model.memory=lstm", *out)
    assert "batch" in complain(capsys, "train", "tiny", "train.batch=0", *out)
    assert not (tmp_path / "run").exists()


def test_wrong_usage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--bogus" in complain(capsys, "train", "tiny", "--bogus")
    assert "Did you mean 'train'? See:" in complain(capsys, "tran", "tiny")
    assert "See: worldvae eval --help" in complain(capsys, "eval", str(run), "--episodes", "2.5")
    assert "RUN" in complain(capsys, "eval")
    assert call("--version") == 0 and capsys.readouterr().out.startswith("worldvae 0.")
    assert call() == 0 and "check-env" in capsys.readouterr().out
    assert call("eval", "-h") == 0 and "--episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["eval", "RUN", "--diagnose"], "worldvae diagnose RUN"),
        (["eval", "RUN", "--diagnose", "--no-inference"], "worldvae diagnose RUN"),
        (["eval", "RUN", "--goals", "--episodes", "9"], "worldvae goals RUN"),
        (["compare", "pendulum", "--minutes", "3", "train.steps=9"], "worldvae study online pendulum"),
        (["compare", "--minutes", "3", "pendulum"], "worldvae study online pendulum"),
        (["compare", "digits"], "worldvae study digits"),
        (["compare", "digits", "--families", "flow"], "worldvae study digits (--families is now --priors there)"),
        (["compare"], "worldvae study online CONFIG"),
    ],
)
def test_an_old_word_names_the_new(old: list[str], new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert complain(capsys, *old).endswith(new)


def test_settings_that_do_not_fit_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    blocks = complain(capsys, "train", "tiny", "model.memory=block_gru", "model.memory_size=100", *out)
    assert "memory_size=100 is not divisible by 8 blocks" in blocks
    assert "actor_critic.gradient" in complain(capsys, "train", "CartPole-v1", "actor_critic.gradient=dynamics", *out)
    assert not (tmp_path / "run").exists()


def test_wrong_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("env: {id: worldvae/Tiny-v0}\ntrain: {stepps: 3}\n")
    sentence = complain(capsys, "train", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run"))
    assert "train.stepps" in sentence and "Did you mean" in sentence and "steps" in sentence


def test_wrong_places(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run" in complain(capsys, "eval", str(tmp_path / "nothing"))
    assert "no run" in complain(capsys, "dream", str(tmp_path))
    assert "no run" in complain(capsys, "train", "--resume", str(tmp_path / "nothing"))
    assert "already holds a run" in complain(capsys, "train", "tiny", "--out", str(run))
    (tmp_path / "file").write_text("")
    assert "cannot write" in complain(capsys, "train", "tiny", "--out", str(tmp_path / "file" / "run"))
    for extra in (["tiny"], ["--out", "elsewhere"], ["--seed", "3"]):
        assert "leave it out" in complain(capsys, "train", *extra, "--resume", str(run))
    assert "no agent 'actr'" in complain(capsys, "eval", str(run), "--agent", "actr")
    assert "no agent 'actr'" in complain(capsys, "eval", str(run), "--agent", "cem,actr")
    assert "names cem twice" in complain(capsys, "eval", str(run), "--agent", "cem,cem")
    assert "needs an agent that plans" in complain(capsys, "eval", str(run), "--plan-film")
    assert "no agent 'cem,actor'" in complain(capsys, "diagnose", str(run), "--agent", "cem,actor")
    assert "cannot be given here" in complain(capsys, "eval", str(run), "model.latent=3")
    assert "Did you mean 'cem.candidates'" in complain(capsys, "eval", str(run), "cem.candidats=3")
    assert "elites=4" in complain(capsys, "eval", str(run), "cem.candidates=3")
    assert "would not be used" in complain(capsys, "eval", str(run), "cem.discount=0.5")
    assert ".avi" in complain(capsys, "dream", str(run), "--out", str(tmp_path / "film.avi"))
    assert "positive" in complain(capsys, "eval", str(run), "--episodes", "0")


def test_wrong_numbers(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    for command in (["eval", str(run), "--episodes", "1"], ["dream", str(run)], ["check-env", "CartPole-v1"]):
        assert "seed=-1" in complain(capsys, *command, "--seed", "-1")
        assert "whole number" in complain(capsys, *command, "--seed", str(2**64))
    assert "seed=-1" in complain(capsys, "train", "tiny", "--seed", "-1", *out)
    for minutes in ("0", "-1", "nan"):
        assert "--minutes" in complain(capsys, "train", "tiny", "--minutes", minutes, *out)
    for seconds in ("-1", "nan", "inf"):
        assert "seconds" in complain(capsys, "check-env", "CartPole-v1", "--seconds", seconds)
    for setting in (
        *("train.updates=-1", "train.eval_episodes=-1", "train.ratio=nan", "train.ratio=.inf", "model.hidden=-5"),
        *("model.bins=1", "model.vector_sigma=0", "model.pixel_sigma=-1"),
        *(
            "optimiser.learning_rate=nan",
            "optimiser.clip=0",
            "optimiser.warmup=-1",
            "optimiser.final=2",
            "model.bins=256",
            "actor_critic.scale_decay=1",
        ),
    ):
        assert setting.split("=")[0].split(".")[1] + "=" in complain(capsys, "train", "tiny", setting, *out)
    assert not (tmp_path / "run").exists()


def test_a_run_that_could_not_begin_leaves_the_folder_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert "not available" in complain(capsys, "train", "tiny", "device=mps", *out)
    assert "too small" in complain(capsys, "train", "tiny", "train.replay_bytes=10", *out)
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert call("train", "tiny", *out, *QUICK, "train.steps=20", "train.eval_episodes=0") == 0
    assert "Nothing will be learned" in capsys.readouterr().err


def test_a_run_that_was_killed_before_its_first_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("env: {id: worldvae/Tiny-v0}\n")
    assert "delete the folder" in complain(capsys, "train", "tiny", "--out", str(tmp_path))


def test_a_film_in_an_impossible_place(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "film.gif", tmp_path / "folder.png"):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        sentence = complain(capsys, "dream", str(run), "--horizon", "2", "--episodes", "1", "--out", str(place))
        assert "cannot write the film" in sentence and str(place) in sentence


def test_a_dream_is_no_longer_than_the_episodes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After the end of every episode there is nothing to compare, and no PSNR of 100 dB to report."""
    assert call("dream", str(run), "--context", "5", "--horizon", "80", "--episodes", "2", "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["horizon"] == len(found["psnr"]) == len(found["reward_mae"]) == 46  # 50 steps are 51 rows
    assert max(found["psnr_copy_last"]) < 100
    assert "46 of 80" in captured.err


def test_two_trainings_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Trainer.begin(
        load_config(RunConfig, [{"env": {"id": "worldvae/Tiny-v0"}}], [*SMALL, "train.steps=20"]), tmp_path / "run"
    )
    first.train()
    assert "another process" in complain(capsys, "train", "--resume", str(tmp_path / "run"))
    first.close()
    Trainer.resume(tmp_path / "run").close()


def test_a_damaged_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "copy")
    state = next((tmp_path / "copy" / "checkpoints").glob("step_*")) / "state.json"
    for content in (b"[]", b"{}", b"\xff", b'{"format"'):
        state.write_bytes(content)
        assert "is damaged" in complain(capsys, "eval", str(tmp_path / "copy"))


def test_what_resuming_refuses(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "config.yaml").read_text()
    for i, (before, after) in enumerate((("envs: 2", "envs: 3"), ("- 16", "- 24"), ("worldvae/Tiny", "CartPole"))):
        copy = tmp_path / str(i)
        shutil.copytree(run, copy)
        assert before in text
        (copy / "config.yaml").write_text(text.replace(before, after).replace("CartPole-v0", "CartPole-v1"))
        assert "undo what was edited" in complain(capsys, "train", "--resume", str(copy))
    rows = tmp_path / "0" / "replay" / "action.bin"
    (tmp_path / "0" / "config.yaml").write_text(text)
    with rows.open("r+b") as file:
        file.truncate(10)
    assert "action.bin" in complain(capsys, "train", "--resume", str(tmp_path / "0"))
    assert rows.stat().st_size == 10  # unchanged


def test_resuming_without_permission(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    shutil.copytree(run, tmp_path / "copy")
    monkeypatch.setattr(Replay, "_map", denied)  # tests may run as root, for whom nothing is denied
    assert "cannot read and write the replay" in complain(capsys, "train", "--resume", str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [("- 16", "- 24", "undo what was edited"), ("worldvae/Tiny-v0", "CartPole-v1", "undo what was edited"),
     ("obs: pixels", "obs: state", "undo what was edited"), ("size: tiny", "size: small", "size mismatch")],
)  # fmt: skip
def test_eval_of_a_run_whose_config_was_edited(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, word: str
) -> None:
    shutil.copytree(run, tmp_path / "copy")
    config = tmp_path / "copy" / "config.yaml"
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after))
    for command in ("eval", "dream"):
        assert word in complain(capsys, command, str(tmp_path / "copy"))


def test_a_run_of_another_version(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    state = next((copy / "checkpoints").glob("step_*")) / "state.json"
    state.write_text(state.read_text().replace(f'"format": {FORMAT_VERSION}', '"format": 99', 1))
    assert "format 99" in complain(capsys, "eval", str(copy))


def test_worlds_without_frames_are_filmed_as_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert call("train", "tiny", "--out", out, *QUICK, "env.obs=state", "train.steps=200") == 0
    capsys.readouterr()
    assert call("dream", out, "--json", "--horizon", "10", "--episodes", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["psnr"]) == 10 and Path(found["file"]).exists()
