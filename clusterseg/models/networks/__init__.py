"""One file a network: `build(classes, size, *, options...) -> keras.Model`."""
