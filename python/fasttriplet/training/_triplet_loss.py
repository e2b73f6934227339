"""What the triplet losses of all frameworks have in common."""

from __future__ import annotations

# Added to the squared norm that an embedding is divided by the root of, so that a row of zeros stays one.
EPSILON = 1e-10

# Cosines are kept this far from -1 and 1, where the slope of arccos is infinite and rounding may exceed the
# limits. It is 16 float32 steps; an angle is wrong by 0.0014 at most.
FROM_ONE = 1e-6
