"""One file a layout on disk: `open_dataset(spec, root, ignore, faults) -> Dataset`."""
