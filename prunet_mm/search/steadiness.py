"""When lambda is steady: what decides, and what tells of it, go by the same numbers."""

MEMORY = 20  # architecture steps, of lambda's moving average
# How far from its average lambda is steady. A floor, since near 0 every share of it is noise.
STEADY_SHARE, STEADY_FLOOR = 0.15, 0.02
