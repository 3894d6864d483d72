"""Data: the small real sets that a newcomer can run on, checks of any, streams for searches.

Importing it imports no torch.
"""
