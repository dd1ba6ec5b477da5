import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from worldvae.errors import UserError
from worldvae.runs.checkpoint import FORMAT_VERSION, latest, load, pack, save, unpack

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from([torch.arange(6).reshape(2, 3).T, torch.tensor(1.5), torch.zeros(0, 2), torch.ones(1).bool()]),
)
KEYS = st.one_of(st.text("ab/$'", max_size=4), st.integers(0, 9))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=200, deadline=None)
@given(tree=TREES)
def test_unpack_is_the_inverse_of_pack(tree) -> None:
    tensors, structure = pack(tree)
    assert same(unpack(tensors, json.loads(json.dumps(structure, allow_nan=False))), tree)


def test_floats_without_a_word_in_json(tmp_path) -> None:
    found = load(save(tmp_path, 1, {"x": [math.inf, -math.inf, math.nan]}))["x"]
    assert found[:2] == [math.inf, -math.inf] and math.isnan(found[2])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_types_survive(tmp_path, dtype) -> None:
    x = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    assert same(
        load(save(tmp_path, 0, {"x": x, "view": x[:, 1:], "scalar": x[0, 1]})),
        {"x": x, "view": x[:, 1:], "scalar": x[0, 1]},
    )


def test_pack_copies(tmp_path) -> None:
    x = torch.zeros(3)
    tensors, structure = pack({"x": x})
    x += 1
    assert torch.equal(unpack(tensors, structure)["x"], torch.zeros(3))


def test_a_shared_tensor_is_stored_once(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    tensors, structure = pack(model.state_dict())
    assert sorted(tensors) == ["0.bias", "0.weight", "1.bias"]
    again = unpack(tensors, structure)
    assert again["0.weight"] is again["1.weight"]


def test_training_goes_on_exactly(tmp_path) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer, torch.Generator]:
        model = nn.Linear(5, 3)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.8, 0.95)), torch.Generator()

    def train(parts: tuple[nn.Module, torch.optim.Optimizer, torch.Generator], steps: int) -> list[float]:
        model, optimizer, generator = parts
        losses = []
        for _ in range(steps):
            loss = model(torch.randn(8, 5, generator=generator)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    a, b = make(), make()
    train(a, 5)
    names = ("model", "optimizer")
    state = {name: part.state_dict() for name, part in zip(names, a, strict=False)} | {"generator": a[2].get_state()}
    found = load(save(tmp_path, 5, state))
    assert same(found["optimizer"], a[1].state_dict())
    b[0].load_state_dict(found["model"])
    b[1].load_state_dict(found["optimizer"])
    b[2].set_state(found["generator"])
    assert train(b, 5) == train(a, 5)


def test_what_is_neither_tensor_nor_plain_value_is_refused() -> None:
    with pytest.raises(TypeError, match="'run/folder' is a PosixPath"):
        pack({"run": {"folder": Path("/")}})


def test_the_newest_two_are_kept_and_later_steps_are_deleted(tmp_path) -> None:
    assert latest(tmp_path / "nothing") is None
    for step in (9, 10, 123456789):
        save(tmp_path, step, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000010", "step_123456789"]
    assert latest(tmp_path) == tmp_path / "step_123456789"
    save(tmp_path, 50, {"step": 50})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000010", "step_00000050"]
    save(tmp_path, 50, {"step": "again"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000010", "step_00000050"]
    assert load(tmp_path / "step_00000050") == {"step": "again"}


def test_a_crash_before_the_move_leaves_the_checkpoint_before(tmp_path, monkeypatch) -> None:
    save(tmp_path, 1, {"x": torch.ones(2)}, keep=1)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, {"x": torch.zeros(2)}, keep=1)
    assert (tmp_path / ".step_00000002.tmp" / "tensors.safetensors").exists()
    found = latest(tmp_path)
    assert found is not None and torch.equal(load(found)["x"], torch.ones(2))
    save(tmp_path, 3, {"x": torch.zeros(2)}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000003"]


def test_the_old_one_goes_only_when_the_new_one_is_complete(tmp_path, monkeypatch) -> None:
    save(tmp_path, 1, {}, keep=1)
    seen = []
    monkeypatch.setattr("shutil.rmtree", lambda path: seen.append((path.name, latest(tmp_path))))
    path = save(tmp_path, 2, {}, keep=1)
    assert seen == [("step_00000001", path)]


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_missing_and_damaged(tmp_path, name) -> None:
    path = save(tmp_path, 1, {"x": torch.ones(1000)})
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged"):
        load(path)
    (path / name).unlink()
    with pytest.raises(UserError, match="there is no checkpoint"):
        load(path)


def test_another_format(tmp_path) -> None:
    path = save(tmp_path, 1, {})
    content = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(content | {"format": FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match=f"format {FORMAT_VERSION + 1}.*format {FORMAT_VERSION}"):
        load(path)


def test_no_room(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        save(tmp_path / "file", 1, {})
