"""What a trained network says of pictures: `evaluate` with options, `predict`."""
