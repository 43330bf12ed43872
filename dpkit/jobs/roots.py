"""The secret roots of a run: where its noise and its batches come from.

Two independent roots drawn from the operating system. Whoever holds the noise root can
subtract the noise, so roots live in a run's `private/` folder and die with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.data.random_access import ArrayRows, Rows
from dpkit.data.spool import FileRows
from dpkit.data.units import UserRows
from dpkit.mechanisms.noise import chacha_key

_LOOKED_AT = 64
_BYTES = 32


@dataclasses.dataclass(frozen=True, repr=False)
class Roots:
    """One root for noise and one for sampling, 32 bytes each, never shown.

    Raises:
      ValueError: a root of another length, or the same bytes twice.
    """

    noise: bytes
    sampling: bytes

    def __post_init__(self) -> None:
        """Refuses one root for both purposes."""
        for name in ("noise", "sampling"):
            length = len(getattr(self, name))
            if length != _BYTES:
                raise ValueError(f"{name} root has {length} bytes: {_BYTES} are needed")
        if hmac.compare_digest(self.noise, self.sampling):
            raise ValueError(
                "noise root and sampling root are the same: draw two independent ones"
            )

    @classmethod
    def draw(cls) -> Roots:
        """Fresh roots from the operating system."""
        return cls(secrets.token_bytes(_BYTES), secrets.token_bytes(_BYTES))

    @classmethod
    def insecure(cls, seed: int) -> Roots:
        """Roots that anybody can compute: for tests alone, without any privacy."""
        noise, sampling = (
            hashlib.sha256(f"dpkit insecure {name} {seed}".encode()).digest()
            for name in ("noise", "sampling")
        )
        return cls(noise, sampling)

    @property
    def noise_key(self) -> jax.Array:
        """The typed key of all noise."""
        return _key(self.noise, b"noise key")

    def key_for(self, generator: str) -> jax.Array:
        """The key of all noise by a generator: 256 bits for ChaCha20, 64 otherwise."""
        if generator != "chacha20":
            return self.noise_key
        return chacha_key(hmac.new(self.noise, b"chacha20", hashlib.sha256).digest())

    def key(self, name: str) -> jax.Array:
        """The typed key of the noise of one named release."""
        return _key(self.noise, b"release " + name.encode())

    @property
    def sampling_key(self) -> jax.Array:
        """The typed key of all batches."""
        return _key(self.sampling, b"sampling key")

    @property
    def grouping_key(self) -> jax.Array:
        """The typed key that chooses which rows of a unit are kept."""
        return _key(self.sampling, b"grouping key")

    @property
    def model_key(self) -> jax.Array:
        """The typed key of randomness inside the loss, such as dropout."""
        return _key(self.sampling, b"model key")

    def fingerprint(self, rows: Rows) -> str:
        """A keyed digest of the data: tells changes to the run, nothing to others.

        All rows of arrays in memory and of tables count, and whom they belong to; of
        other sources the number of rows, their shape, and 64 rows whose numbers only
        this root knows.
        """
        digest = hmac.new(self.sampling, b"data", hashlib.sha256)
        for array in self._looked_at(rows):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _looked_at(self, rows: Rows) -> Iterable[np.ndarray]:
        """The arrays that count for the fingerprint."""
        if isinstance(rows, FileRows):
            return rows.blocks()
        if isinstance(rows, UserRows):
            return [*rows.grouping, *self._looked_at(rows.rows)]
        if isinstance(rows, ArrayRows):
            return jax.tree.leaves(rows.records)
        seed = hmac.new(self.sampling, b"rows to look at", hashlib.sha256).digest()
        draws = np.random.default_rng(np.frombuffer(seed, np.uint32))
        chosen = draws.integers(len(rows), size=min(_LOOKED_AT, len(rows)))
        return [np.array(len(rows)), *jax.tree.leaves(rows.take(chosen))]


def secret_key() -> jax.Array:
    """A fresh key from the operating system, for noise and batches in a loop of yours.

    Privacy: all of its 64 bits are secret. `jax.random.key(seed)` keeps 32 bits of a
    seed at most, which anybody can try out to subtract the noise. Keep the key to
    yourself, and use it for one plan only.

    Returns:
      A typed Threefry key.

    Example:
      >>> secret_key().shape
      ()
    """
    return _key(secrets.token_bytes(_BYTES), b"secret key")


def noise_key(key: jax.Array, public: bytes, private: np.ndarray) -> jax.Array:
    """A key for the noise of one release: another release has another key.

    A key that serves two releases by mistake, as a copied estimator's does, would give
    them the same noise, and their difference none. So the key is mixed by a keyed hash
    with all that the release depends on: the same release is repeated, which tells
    nothing new; any other has noise as independent as the hash is good. (As synthetic
    nonces do for ciphers: Rogaway and Shrimpton, 2006.)

    Args:
      key: secret.
      public: what the structure is, its noise included.
      private: the sum, or the points themselves.

    Returns:
      A key, secret too.
    """
    secret = np.asarray(jax.random.key_data(key)).tobytes()
    mixed = hashlib.blake2b(key=secret, digest_size=len(secret))
    mixed.update(hashlib.sha256(public).digest())
    mixed.update(repr((private.shape, private.dtype.str)).encode())
    mixed.update(np.ascontiguousarray(private).tobytes())
    words = np.frombuffer(mixed.digest(), np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl=jax.random.key_impl(key))


def _key(root: bytes, purpose: bytes) -> jax.Array:
    """A Threefry key: 64 bits of a keyed hash of the purpose."""
    digest = hmac.new(root, purpose, hashlib.sha256).digest()
    words = np.frombuffer(digest[:8], np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
