"""Training runs: what happens between a configuration and a tested bundle.

`prepare` checks a configuration and makes a `Training`. `Training.run` trains, validates and keeps the best parameters;
`measure_on_test_split` tests these on unseen classes. `RunFolder` is the run on disk, `RunLog` its figures over time.
`initial_parameters` reads the parameters that a run may start from, and `provenance` writes the manifest of its bundle.
"""
