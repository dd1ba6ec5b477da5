"""The pendulum without arrow: Gymnasium's in everything but the frame, which says nothing of the torque."""

import numpy as np

from worldvae.envs import make


def test_it_is_gymnasiums_pendulum_step_by_step() -> None:
    ours, theirs = (make(id, obs="state", action_repeat=2) for id in ("worldvae/Pendulum-v0", "Pendulum-v1"))
    np.testing.assert_array_equal(*(env.reset(seed=5)[0]["vector"] for env in (ours, theirs)))
    draws = np.random.default_rng(0)
    for _ in range(100):
        action = draws.uniform(-1, 1, 1).astype(np.float32)
        one, other = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(one[0]["vector"], other[0]["vector"])
        assert one[1:4] == other[1:4]
    assert one[3], "an episode is cut off after 200 steps"


def test_frames_do_not_depend_on_the_torque() -> None:
    def frame(id: str, action: float) -> np.ndarray:
        env = make(id, obs="pixels")
        env.reset(seed=1)
        pendulum = env.env.unwrapped
        shown = env.step(np.array([action], np.float32))[0]
        pendulum.state = np.array([0.5, 0.0])
        shown = env.show(np.zeros(3, np.float32))
        assert pendulum.last_u is not None  # it is hidden, not lost
        return shown["pixels"]

    np.testing.assert_array_equal(frame("worldvae/Pendulum-v0", 1.0), frame("worldvae/Pendulum-v0", -0.4))
    assert (frame("Pendulum-v1", 1.0) != frame("Pendulum-v1", -0.4)).any()
