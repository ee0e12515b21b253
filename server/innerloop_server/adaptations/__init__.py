"""Keeping adaptations for their owners, and Adapt requests that may be repeated safely.

A `record` says what an adaptation is, a `recipe` what made it; `sealing` turns both and the task state into bytes whose
damage is noticed. `live` holds task states in memory under a budget; `stores` hold bytes behind it, of the `parts` that
are kept, and what comes back is `fetched`. The `keeper` is what the rest of the server asks: it puts these together,
postpones expiries by the `clock`, sweeps, and remembers what has `departed`. `flights` make equal requests that are
under way share one computation.
"""
