"""Sums of clipped per-example gradients of any JAX loss.

`clipped_grad` is to private training what `jax.grad` is to training: it turns the loss
of one example into a function of a batch that returns sum_i clip(grad loss_i, C).
Noise is added by others, once, to that sum.

Several ways to the same number. `auto` rewrites the traced loss so that norms need no
per-example gradients (`dpkit.rewrite` has the idea and its parts). `vmap` makes all
gradients of a batch at once and is what the others are tested against. `two_pass` finds
norms first and gradients afterwards, in the memory of a loss that recomputes its
activations. Any of them can go through the batch in chunks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dpkit import rewrite
from dpkit.accountants.answers import checks
from dpkit.accountants.events import Relation
from dpkit.mechanisms.clipped_sum import ClippedSum
from dpkit.mechanisms.clipping import clip_pinned
from dpkit.mechanisms.clips import Clip, Flat, as_clip
from dpkit.mechanisms.pinning import pinned
from dpkit.mechanisms.protocol import tree_sum
from dpkit.rewrite.blocks import compensated
from dpkit.training.comparison import Check, compare
from dpkit.training.execution import MODES
from dpkit.training.inspection import check_batch, check_loss, check_params
from dpkit.training.isolation import CONVOLUTION, isolated

LossFn = Callable[[Any, Any, Any], jax.Array]
DATA_AXIS = "data"
_CHUNK = 8
# Examples that are added up without Kahan's sum: see `dpkit.rewrite.blocks`.
_MOST_AT_ONCE = 2**12


class PrivateAux(NamedTuple):
    """What a clipped gradient knows about single examples: private, all of it.

    Nothing here is noised. Publishing any of it, or a statistic of it, is a release of
    its own that must be charged.

    Example:
      >>> aux = PrivateAux(losses=jnp.zeros(2), norms=jnp.array([3.0, 4.0]))
      >>> float(aux.norms.max())
      4.0
    """

    losses: jax.Array
    norms: jax.Array


@dataclasses.dataclass(frozen=True)
class ClippedGrad:
    """What `clipped_grad` returns: call it with (params, batch, mask, keys).

    Example:
      >>> f = clipped_grad(lambda w, x, key: jnp.vdot(w, x), clip_norm=0.5)
      >>> isinstance(f, ClippedGrad), f.sensitivity("replace_one")
      (True, 1.0)
    """

    loss_fn: LossFn
    clip: Clip
    mode: str = "auto"
    microbatch: int | None = None
    kappa: float = 2.0
    mesh: Mesh | None = None
    constant_time: bool = False
    allow_effects: bool = False

    def sensitivity(self, relation: Relation | str) -> float:
        """The most that one record moves the sum, in L2: the clip's radius, or twice
        that if a record is replaced.
        """
        return self.clip.sensitivity(relation)

    def plan(self, params: Any, batch: Any, keys: Any = None) -> rewrite.Table:
        """How `auto` takes the norm of every parameter, and what that costs.

        Args:
          params, batch, keys: as in a call, or their shapes; values are not read.

        Returns:
          A table with a row a parameter: its sites, its form, bytes and operations an
          example; `print` shows it.
        """
        example, key = _one(batch), None if keys is None else _one(keys)
        program = rewrite.trace(self.loss_fn, params, example, key)
        return rewrite.tabulate(program, params, self.kappa)

    def check(self, params: Any, batch: Any, keys: Any = None) -> Check:
        """Compares this mode with `vmap` on the first two examples of a batch.

        Privacy: the comparison reads the batch. Give it rows that are public or made
        up; its result is not a release.

        Args:
          params, batch, keys: as in a call.

        Returns:
          The norms of both ways, and the parameters whose gradient was zero.

        Raises:
          ValueError: norms or sums differ by more than a thousandth: please report the
            loss; until then use mode="vmap".
        """
        way = dataclasses.replace(self, mesh=None)
        trusted = dataclasses.replace(way, mode="vmap", microbatch=None)
        return compare(way, trusted, params, batch, keys)

    def __call__(
        self,
        params: Any,
        batch: Any,
        mask: jax.Array | np.ndarray | None,
        keys: jax.Array | None = None,
    ) -> tuple[ClippedSum, PrivateAux]:
        """The clipped sum over the valid examples of a batch.

        Args:
          params: a tree of real floating arrays; all of them count in the norm.
          batch: a tree of arrays (B, ...), one example in each row.
          mask: (B,) booleans, False for padding; None says that no row is padding.
          keys: (B,) typed random keys, one an example, for dropout and the like.

        Returns:
          The sum, whose `private_value` has the structure of params in float32 or
          wider, and a `PrivateAux` of per-example losses and norms, (B,) each, zero
          where the mask is False or where the example's gradient is not finite.

        Raises:
          ValueError, TypeError: leaves of unequal length, a mask or keys of the wrong
            shape or type, parameters or a loss that `check_params` or `check_loss`
            refuse.
        """
        check_params(params)
        mask = mask if mask is None else jnp.asarray(mask)
        size = check_batch(batch, mask, keys)
        batch = jax.tree.map(jnp.asarray, batch)
        masked = mask is not None
        mask = mask if masked else jnp.ones(size, bool)
        names = check_loss(
            self.loss_fn,
            jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params),
            _one(batch),
            None if keys is None else _one(keys),
            allow_effects=self.allow_effects,
        ).names
        # Rows travel with the words of their keys: padding repeats a row, and a
        # repeated typed key would look like a reused one.
        words = None if keys is None else jax.random.key_data(keys)
        worker = dataclasses.replace(self, loss_fn=_with_words(self.loss_fn, keys))
        local = worker._local_sum
        if CONVOLUTION in names:
            local = isolated(local)
        rows = (batch, mask, words)
        if self.mesh is None and not _states_rows(batch):
            total, aux = local(params, rows)
        else:
            total, aux = _sharded_sum(self.mesh, local, params, rows)
        return ClippedSum(total, _named(self.clip), rows=size, masked=masked), aux

    def _local_sum(self, params: Any, rows: Any) -> tuple[Any, PrivateAux]:
        """The sum over the rows that this device holds."""
        size = rows[1].shape[0]
        width = min(self.microbatch or size, size)
        if width > _MOST_AT_ONCE:
            width = -(-size // -(-size // _MOST_AT_ONCE))  # as even as can be
        if size == 0 or (self.microbatch is None and width == size):
            return self._chunk(params, rows)
        return self._looped_sum(params, rows, size, width)

    def _looped_sum(
        self, params: Any, rows: Any, size: int, width: int
    ) -> tuple[Any, PrivateAux]:
        """The same sum by chunks of `width` rows, stopping after the last valid one."""
        pad = -size % width
        rows = jax.tree.map(lambda leaf: _pad(leaf, pad), rows)
        chunks = jax.tree.map(
            lambda leaf: leaf.reshape(-1, width, *leaf.shape[1:]), rows
        )
        count = (size + pad) // width
        used = jnp.any(chunks[1], axis=1)
        stop = jnp.max(jnp.where(used, jnp.arange(1, count + 1), 0))

        def body(i: jax.Array, carry: Any) -> Any:
            total, lost, aux = carry
            chunk = jax.tree.map(lambda leaf: leaf[i], chunks)
            part, part_aux = self._chunk(params, chunk)
            total, lost = compensated(total, lost, part)
            aux = jax.tree.map(lambda a, b: a.at[i].set(b), aux, part_aux)
            return total, lost, aux

        shapes = jax.eval_shape(
            lambda c: self._chunk(params, c),
            jax.tree.map(lambda leaf: leaf[0], chunks),
        )
        total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[0])
        aux = jax.tree.map(lambda s: jnp.zeros((count, *s.shape), s.dtype), shapes[1])
        bound = count if self.constant_time else stop
        start = (total, jax.tree.map(jnp.zeros_like, total), aux)
        total, _, aux = jax.lax.fori_loop(0, bound, body, start)
        return total, jax.tree.map(lambda a: a.reshape(-1)[:size], aux)

    def _chunk(self, params: Any, rows: Any) -> tuple[Any, PrivateAux]:
        """The sum over rows at once, and losses and norms of those that count."""
        way = self._rewritten if self.mode == "auto" else self._gradients
        if self.mode == "two_pass":
            way = self._twice
        if rows[1].shape[0] <= 1:  # nothing to share among examples
            way = self._gradients
        total, losses, norms = way(params, rows)
        usable = rows[1] & jnp.isfinite(norms)
        zero = jnp.zeros_like(norms)
        aux = PrivateAux(
            jnp.where(usable, losses.astype(norms.dtype), zero),
            jnp.where(usable, norms, zero),
        )
        return total, aux

    def _gradients(self, params: Any, rows: Any) -> tuple[Any, jax.Array, jax.Array]:
        """By per-example gradients; one row needs no batch axis, which is faster."""
        examples, valid, keys = rows
        one = jax.value_and_grad(self.loss_fn)
        if len(valid) == 1:
            example, key = jax.tree.map(lambda leaf: leaf[0], (examples, keys))
            loss, grad = pinned(one(params, example, key))
            total, norm = self._clipped(grad, valid[0])
            return total, loss[None], norm[None]
        losses, grads = pinned(jax.vmap(one, (None, 0, 0))(params, examples, keys))
        clipped, norms = jax.vmap(self._clipped)(grads, valid)
        return jax.tree.map(tree_sum, clipped), losses, norms

    def _clipped(self, grad: Any, valid: jax.Array) -> tuple[Any, jax.Array]:
        """One example's share of the sum; zero for padding and non-finite ones."""
        clipped, norm = clip_pinned(grad, self.clip)
        return jax.tree.map(
            lambda g: jnp.where(valid, g, jnp.zeros_like(g)), clipped
        ), norm

    def _rewritten(self, params: Any, rows: Any) -> tuple[Any, jax.Array, jax.Array]:
        """By the rewritten loss."""
        leaves, treedef = jax.tree.flatten(params)
        example, _, key = _one(rows)
        program = rewrite.trace(self.loss_fn, params, example, key)
        total, losses, norms = rewrite.clipped_sum(
            program,
            rewrite.choose(program, len(leaves), self.kappa),
            self.clip,
            self.clip.groups(params),
            leaves,
            jax.tree.leaves((rows[0], rows[2])),
            rows[1],
        )
        return jax.tree.unflatten(treedef, total), losses, norms

    def _twice(self, params: Any, rows: Any) -> tuple[Any, jax.Array, jax.Array]:
        """By two runs of the loss."""
        leaves, treedef = jax.tree.flatten(params)
        example, _, key = _one(rows)
        total, losses, norms = rewrite.clipped_sum_twice(
            rewrite.Twice.of(self.loss_fn, params, example, key, self.kappa),
            self.clip,
            self.clip.groups(params),
            leaves,
            jax.tree.leaves((rows[0], rows[2])),
            rows[1],
        )
        return jax.tree.unflatten(treedef, total), losses, norms


def clipped_grad(
    loss_fn: LossFn,
    *,
    clip_norm: float | None = None,
    clip: Clip | None = None,
    mode: str = "auto",
    microbatch: int | None = None,
    kappa: float = 2.0,
    keep_batch_axis: bool = False,
    mesh: Mesh | None = None,
    constant_time: bool = False,
    allow_effects: bool = False,
) -> ClippedGrad:
    """Turns the loss of one example into the clipped gradient sum of a batch.

    S = sum_i m_i g_i phi(||g_i||), g_i = grad loss_fn(params, example_i, key_i), the
    norm over all leaves together, in float32 or wider; phi(n) = min(1, C / n) unless
    another `clip` is given.

    Privacy: adding or removing one example moves S by at most clip.radius (C) in L2,
    replacing one by at most twice that, whatever the example is: one with a non-finite
    gradient contributes exactly zero, and examples can't see each other. S itself is
    NOT private: add noise, as `as_optax` does; its type lets nothing else be done with
    it. With chunks (`microbatch`) the loop stops after the last valid row, so its time
    tells how large the batch was; `constant_time` prevents it.

    Args:
      loss_fn: (params, example, key) -> scalar, for ONE example without a batch axis.
      clip_norm: C > 0, finite; the unit of a gradient. Or:
      clip: a clipping function of `dpkit.mechanisms.clips`. Exactly one of the two.
      mode: "auto" (the rewritten loss), "vmap" (per-example gradients), "two_pass"
        (least memory for a loss with `jax.checkpoint`), or "microbatch" (per-example
        gradients in chunks, of 8 unless `microbatch` is given).
      microbatch: examples a chunk, >= 1, in any mode; None takes all at once, up to
        4,096, the most of any chunk.
      kappa: for "auto": a parameter's gradients are kept whole where that takes at
        most kappa times the numbers of its thin factors.
      keep_batch_axis: the loss wants batches, and is given batches of one example.
      mesh: with an axis "data": each device sums its share of the rows. None takes
        that of a batch whose type states one (explicit axes, as of `jax.make_mesh`).
      constant_time: loop over padding too.
      allow_effects: accept callbacks in the loss (they see private values).

    Returns:
      f(params, batch, mask, keys=None) -> (clipped_sum, private_aux), which may be
      jitted, and has `sensitivity(relation)`, `plan(params, batch)` and
      `check(params, batch)`. The sum is a `ClippedSum`, which the noise of a plan
      accepts if that plan clips in the same way; `plan.gradient` makes it so.

    Raises:
      ValueError: a number out of range, an unknown mode, both or neither of clip_norm
        and clip.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w, x, key: jnp.vdot(w, x)
      >>> f = clipped_grad(loss, clip_norm=1.0)
      >>> total, aux = f(jnp.zeros(2), jnp.array([[3.0, 4.0], [0.0, 0.5]]), None)
      >>> [round(float(x), 4) for x in total.private_value]
      [0.6, 1.3]

    Reference: Abadi et al., "Deep Learning with Differential Privacy", 2016,
      arXiv:1607.00133. Chunks inside one compiled program: Subramani, Vadivelu,
      Kamath, 2021, arXiv:2010.09063. Sources of the norms: `dpkit.rewrite.products`.
    """
    if (clip is None) == (clip_norm is None):
        raise ValueError(
            f"clip_norm={clip_norm!r} and clip={clip!r}: give exactly one of the two"
        )
    chosen = Flat(checks.positive(clip_norm=clip_norm)) if clip is None else clip
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not known: use one of {', '.join(MODES)}")
    if microbatch is None and mode == "microbatch":
        microbatch = _CHUNK
    if microbatch is not None:
        checks.integer_at_least(1, microbatch=microbatch)
    if mesh is not None and DATA_AXIS not in mesh.axis_names:
        raise ValueError(f"mesh has axes {mesh.axis_names}: one must be 'data'")
    if mesh is not None:
        # Rows may come from anywhere; the compiler moves them where they belong.
        mesh = Mesh(mesh.devices, mesh.axis_names)
    return ClippedGrad(
        _of_one(loss_fn) if keep_batch_axis else loss_fn,
        as_clip(chosen),
        mode,
        microbatch,
        checks.non_negative(kappa=kappa),
        mesh,
        constant_time,
        allow_effects,
    )


def _named(clip: Clip) -> Hashable:
    """The identity of a clip: itself, unless its norm is an array."""
    arrays = any(isinstance(value, jax.Array) for value in vars(clip).values())
    return f"{type(clip).__name__} with a norm that is an array" if arrays else clip


def _of_one(loss_fn: LossFn) -> LossFn:
    """A loss of batches as a loss of one example."""

    def loss(params: Any, example: Any, key: Any) -> jax.Array:
        value = loss_fn(params, jax.tree.map(lambda leaf: leaf[None], example), key)
        return value.reshape(()) if value.shape == (1,) else value

    return loss


def _one(rows: Any) -> Any:
    """The shapes of one row."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows
    )


def _stated_mesh(tree: Any) -> AbstractMesh | None:
    """The mesh with explicit axes that the types of arrays state, if they state one."""
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree)]
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def _states_rows(batch: Any) -> bool:
    """Whether the types of a batch say that its rows are split over "data"."""
    specs = [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(batch)]
    over = next((spec[0] for spec in specs if spec and spec[0] is not None), None)
    if over not in (None, DATA_AXIS):
        raise ValueError(
            f"batch is split over axis {over!r} of a mesh: name the axis {DATA_AXIS!r}"
        )
    return over == DATA_AXIS


def _sharded_sum(
    mesh: Mesh | None, local: Callable[[Any, Any], Any], params: Any, rows: Any
) -> tuple[Any, PrivateAux]:
    """Every device sums its rows; then one reduction over devices.

    Arrays on a mesh with explicit axes, as `jax.make_mesh` makes it, say in their type
    how they are split. Inside, the compiler splits, as on any other mesh; and the sum
    gets the types of the parameters.
    """
    stated = _stated_mesh((params, rows))
    if stated is None:
        return _reduced_sum(mesh, local, params, rows)
    whole, split = (
        NamedSharding(stated, PartitionSpec(*axes)) for axes in ((), (DATA_AXIS,))
    )

    def placed(leaf: jax.Array) -> jax.Array:
        known = not jax.typeof(leaf).sharding.mesh.empty
        return leaf if known else jax.sharding.reshard(leaf, whole)

    def run(params: Any, rows: Any) -> tuple[Any, PrivateAux]:
        params = jax.tree.map(placed, params)
        rows = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, split), rows)
        places = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, params)
        split_by_compiler: Any = jax.sharding.auto_axes(
            functools.partial(_reduced_sum, None, local), out_sharding=(places, split)
        )
        return split_by_compiler(params, rows)

    return jax.jit(run)(params, rows)


def _reduced_sum(
    mesh: Mesh | None, local: Callable[[Any, Any], Any], params: Any, rows: Any
) -> tuple[Any, PrivateAux]:
    """The sum over a mesh; None is the one that the trace is on."""
    data = PartitionSpec(DATA_AXIS)

    def reduced(params: Any, rows: Any) -> tuple[Any, PrivateAux]:
        total, aux = local(params, rows)
        return jax.lax.psum(total, DATA_AXIS), aux

    # Other axes of the mesh, over which parameters may be split, are the compiler's
    # own affair.
    return jax.shard_map(
        reduced,
        mesh=mesh,
        in_specs=(PartitionSpec(), data),
        out_specs=(PartitionSpec(), data),
        axis_names={DATA_AXIS},
        check_vma=False,
    )(params, rows)


def _with_words(loss_fn: LossFn, keys: jax.Array | None) -> LossFn:
    """The loss as a function of a key's words."""
    if keys is None:
        return loss_fn
    impl = jax.random.key_impl(keys)
    return lambda params, example, words: loss_fn(
        params, example, jax.random.wrap_key_data(words, impl=impl)
    )


def _pad(leaf: jax.Array, rows: int) -> jax.Array:
    """Repeats the first row; the mask's padding is False since bool rows are zeroed."""
    if rows == 0:
        return leaf
    filler = jnp.repeat(leaf[:1], rows, axis=0)
    if leaf.dtype == jnp.bool_ and leaf.ndim == 1:
        filler = jnp.zeros_like(filler)
    return jnp.concatenate([leaf, filler])
