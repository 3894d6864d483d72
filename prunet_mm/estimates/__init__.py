"""What networks cost on GPUs that are not at hand: estimated, or published by others."""
