"""Training runs: what happens between a configuration and a tested bundle.

`prepare` checks what was asked for and makes a `Training`; `Training.run` trains, validates and keeps the best;
`measure_on_test_split` tests that on unseen classes. `RunFolder` is the run on disk, `RunLog` its figures over time;
`initial_parameters` reads what a run may start from, `provenance` writes what its bundle says of it.
"""
