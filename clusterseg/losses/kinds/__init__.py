"""One file a loss: `build(classes, weights, ignore) -> Loss`."""
