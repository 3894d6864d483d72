"""Pictures through a trained network: prepared, run, read, drawn and written down."""
