"""One file an augmentation: `build(value, context) -> Augmentation`.

An augmentation changes a picture and its labels together, from numbers that it is given: it has
no generator of its own, so the result depends on (seed, epoch, sample) alone.
"""
