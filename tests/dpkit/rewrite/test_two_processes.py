"""Two processes, each with half of the batch, release what one would."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

ROOT = str(Path(__file__).parents[3])
WORKER = """
    import json, sys
    import jax, numpy as np
    port, number, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_num_cpu_devices", 2 if number < 0 else 1)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if number >= 0:
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from dpkit.mechanisms.noise import gaussian_noise
    from tests.bare import clipped_grad
    from tests.dpkit.rewrite.test_sharding import loss_fn, problem

    params, x = jax.tree.map(np.asarray, problem())
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    rows = jax.make_array_from_callback(x.shape, split, lambda index: x[index])
    leaves = jax.tree.map(
        lambda p: jax.make_array_from_callback(p.shape, whole, lambda i: p[i]), params)
    f = clipped_grad(loss_fn, clip_norm=0.3, mode=mode, mesh=mesh)

    @jax.jit
    def run(leaves, rows):
        total, _ = f(leaves, rows)
        noise = gaussian_noise(jax.random.key(7), total, 0.1)
        return jax.tree.map(lambda p, t, n: p - 0.1 * (t + n), leaves, total, noise)

    result = run(leaves, rows)
    found = {k: np.asarray(v.addressable_data(0)).ravel().tolist()
             for k, v in result.items()}
    print(json.dumps(found), flush=True)
    if number >= 0:
        jax.distributed.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "two_pass"])
def test_two_processes_give_the_result_of_one(mode):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", textwrap.dedent(WORKER), port]
    env = {**os.environ, "PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [*command, str(number), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for number in (-1, 0, 1)
    ]
    try:
        done = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, done, strict=True):
        assert process.returncode == 0, errors
    alone, *pair = [json.loads(out.splitlines()[-1]) for out, _ in done]
    for found in pair:
        for name, values in alone.items():
            # The sum of two halves is one rounding, in whatever order.
            np.testing.assert_array_equal(found[name], values)
