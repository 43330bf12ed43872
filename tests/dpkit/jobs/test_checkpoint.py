"""Checkpoints keep state bit for bit, and a damaged one costs only a replay."""

import resource

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit.jobs.checkpoint import Checkpoints


def some_state(fill):
    params = {"w": jnp.full((3, 2), fill, jnp.float32), "b": jnp.zeros(2)}
    return {"params": params, "opt": optax.adam(0.1).init(params)}


def test_the_newest_state_comes_back_bit_for_bit(tmp_path):
    saved = Checkpoints(tmp_path)
    assert saved.latest(some_state(0.0)) is None
    for step in (1, 2, 3):
        saved.save(step, some_state(step / 3), {"step": step})
    saved.close()
    found = Checkpoints(tmp_path).latest(some_state(0.0))
    assert found is not None
    state, facts = found
    assert facts == {"step": 3}
    np.testing.assert_array_equal(state["params"]["w"], np.full((3, 2), 1, np.float32))
    assert type(state["opt"]) is type(some_state(0.0)["opt"])


def test_a_damaged_checkpoint_falls_back_to_an_older_one(tmp_path):
    saved = Checkpoints(tmp_path)
    for step in (1, 2):
        saved.save(step, some_state(float(step)), {"step": step})
    saved.close()
    for path in (tmp_path / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="replaying"):
        found = Checkpoints(tmp_path).latest(some_state(0.0))
    assert found is not None
    assert found[1] == {"step": 1}


def test_a_checkpoint_that_cannot_be_written_is_one_clear_error(tmp_path, capfd):
    """No file may grow here, which the system refuses as it does on a full disk."""
    saved = Checkpoints(tmp_path / "saved")
    saved.save(1, some_state(1.0), {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match=r"step 2 can't be written.*File too large"):
            saved.save(2, some_state(2.0), {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    found = saved.latest(some_state(0.0))
    assert found is not None
    assert found[1] == {"step": 1}
    saved.save(3, some_state(3.0), {"step": 3})
    saved.close()
