"""Meta-training, as a library that prints nothing.

- `data` draws episodes from images, texts or functions.
- `config` is what a run is asked to do; `plan` makes every choice that it leaves open.
- `outer_loop` changes parameters: an estimator says which way, an optimizer how far.
- `runs` trains, keeps on disk what a run needs to go on, and tests its best parameters.
- `evaluation` measures a learner, `bundle_evaluation` a bundle on classes that it has not seen, and `comparison`
  several methods on one budget.
- `export` and `onnx_export` write bundles to serve.
- `cli` has the commands of the shell, and all that is printed.
"""
