"""ChaCha20 with Python integers, from the description in RFC 8439, section 2.3."""

MASK = 0xFFFFFFFF


def block(key: bytes, counter: int, nonce: bytes) -> list[int]:
    """The sixteen words of one block."""
    text = b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce
    start = [int.from_bytes(text[i : i + 4], "little") for i in range(0, 64, 4)]
    x = list(start)

    def step(target, source, mixed, turn):
        x[target] = (x[target] + x[source]) & MASK
        word = x[mixed] ^ x[target]
        x[mixed] = (word << turn) & MASK | word >> (32 - turn)

    for _ in range(10):
        for shift in (0, 1):
            for i in range(4):
                a, b = i, 4 + (i + shift) % 4
                c, d = 8 + (i + 2 * shift) % 4, 12 + (i + 3 * shift) % 4
                step(a, b, d, 16)
                step(c, d, b, 12)
                step(a, b, d, 8)
                step(c, d, b, 7)
    return [(a + b) & MASK for a, b in zip(start, x, strict=True)]


def element_words(key, row, place, groups, blocks) -> tuple[int, int]:
    """High and low word of one element, in the `place` of the last axis of its row.

    A row has `groups` groups, which have `blocks` blocks each: in a group of L blocks,
    block j serves elements j, L + j, ..., 7 L + j.
    """
    group, inside = divmod(place, 8 * blocks)
    lane, number = divmod(inside, blocks)
    words = block(key, (row * groups + group) * blocks + number, bytes(12))
    return words[lane], words[8 + lane]


def child(key: bytes, counter: int, number: int, use: int) -> bytes:
    """Half of a block, as the key of what is derived."""
    nonce = number.to_bytes(4, "little") + bytes(4) + use.to_bytes(4, "little")
    return b"".join(w.to_bytes(4, "little") for w in block(key, counter, nonce)[:8])
