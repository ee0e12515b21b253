"""Meta-training, as a library that prints nothing.

`data` draws episodes from images, texts or functions; `config` says what a run is asked to do and fills in what was
left open; `runs` trains, keeps what a run leaves on disk and tests its best parameters; `evaluation` measures a bundle
on unseen classes, `comparison` several methods on one budget; `onnx_export` writes a learner as ONNX graphs. The
commands of the shell, and all that is printed, are in `cli`.
"""
