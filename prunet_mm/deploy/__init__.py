"""From a config and a checkpoint to a file that runs without this package, checked before it is."""
