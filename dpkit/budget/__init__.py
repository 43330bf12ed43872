"""What a declared run costs, before anything runs; no data is needed.

    from dpkit.budget import declare, solve
    run = declare({"relation": "add_remove", "delta": 1e-5, "dpsgd": {...}})
    solve(run, "noise_multiplier", epsilon=2.0, delta=1e-5).value

The contract: a `Declaration` lists all that will be released, with its relation and its
unit, and everything here reads its `event` in the static regime; what a run may still
choose in the light of its outputs belongs on a ledger. What is answered as a bound is
certified or says that it is not. `solve` checks its own answer at the value that it
returns. A reading by another library (peers.py) is an estimate, whatever it says.

Declarations come from a mapping (`declare`), a file (`read`) or a training run in a few
numbers (`expand`). `compare` asks all accountants side by side; `against_steps`,
`against_noise`, `profile`, `trade_off` and `renyi` are the curves of a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
