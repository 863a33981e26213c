"""What stands on an encoder: pyramids, decoders, context."""
