"""One file a loss: `build(classes, weights, ignore, *, options) -> Loss`."""
