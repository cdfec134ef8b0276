"""TrainState out and in: atomic, verified, to the bit.

`files` knows folders, manifests and hashes and nothing of training; `state` knows what a training run is made of;
`identity` says whose run it is.
"""
