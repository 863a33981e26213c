"""One file a layout: `files(recipe) -> iterator of (relative path, bytes)`."""
