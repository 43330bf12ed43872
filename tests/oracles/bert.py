"""BERT and its pooling in float64, position by position, by the published names."""

import math

import numpy as np


def _linear(w, name, x):
    """A linear map; files keep matrices as (outputs, inputs)."""
    return x @ w[f"{name}.weight"].astype(np.float64).T + w[f"{name}.bias"]


def _norm(w, name, x):
    """Layer norm, as Devlin et al., 2018, take it over: variance plus 1e-12."""
    out = np.empty_like(x)
    for row, values in enumerate(x):
        mean = math.fsum(values) / len(values)
        variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
        out[row] = (values - mean) / math.sqrt(variance + 1e-12)
    return out * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(x):
    """x times the normal distribution function, exactly."""
    return x * np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x)


def _attention(q, k, v):
    """One head; each query by itself."""
    rows = []
    for query in q:
        scores = k @ query / math.sqrt(len(query))
        weights = np.exp(scores - scores.max())
        rows.append(weights @ v / weights.sum())
    return np.array(rows)


def sentence_vector(w, tokens, heads):
    """The mean of the states of tokens after the last layer, of length 1."""
    words = w["embeddings.word_embeddings.weight"].astype(np.float64)
    places = w["embeddings.position_embeddings.weight"].astype(np.float64)
    kind = w["embeddings.token_type_embeddings.weight"].astype(np.float64)[0]
    x = np.array([words[t] + places[n] + kind for n, t in enumerate(tokens)])
    x = _norm(w, "embeddings.LayerNorm", x)
    layer = 0
    while f"encoder.layer.{layer}.output.dense.bias" in w:
        at = f"encoder.layer.{layer}"
        parts = [
            np.split(_linear(w, f"{at}.attention.self.{name}", x), heads, axis=1)
            for name in ("query", "key", "value")
        ]
        mixed = np.hstack([_attention(*each) for each in zip(*parts, strict=True)])
        mixed = _linear(w, f"{at}.attention.output.dense", mixed)
        x = _norm(w, f"{at}.attention.output.LayerNorm", x + mixed)
        inner = _gelu(_linear(w, f"{at}.intermediate.dense", x))
        x = _norm(
            w, f"{at}.output.LayerNorm", x + _linear(w, f"{at}.output.dense", inner)
        )
        layer += 1
    mean = x.sum(0) / len(tokens)
    return mean / math.sqrt(math.fsum(mean**2))
