"""Keeping adaptations for their owners, and Adapt requests that may be repeated safely.

A `record` says what an adaptation is, a `recipe` what made it; `sealing` turns both and the task state into bytes whose
damage is noticed. `live` holds task states in memory under a budget, `stores` hold bytes behind it. The `keeper` is
what the rest of the server asks: it puts the two together, postpones expiries and sweeps. `flights` make equal requests
that are under way share one computation.
"""
