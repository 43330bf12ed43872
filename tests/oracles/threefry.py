"""Threefry-2x32-20 with Python integers, from the description in the paper.

Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011, §3.3.
"""

ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24]
MASK = 0xFFFFFFFF


def threefry_2x32(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Encrypt the counter under the key, 20 rounds."""
    schedule = [key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1]]
    x, y = (counter[0] + schedule[0]) & MASK, (counter[1] + schedule[1]) & MASK
    for number in range(20):
        turn = ROTATIONS[number % 8]
        x = (x + y) & MASK
        y = ((y << turn) & MASK | y >> (32 - turn)) ^ x
        if number % 4 == 3:
            injection = number // 4 + 1
            x = (x + schedule[injection % 3]) & MASK
            y = (y + schedule[(injection + 1) % 3] + injection) & MASK
    return x, y
