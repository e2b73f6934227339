"""`fasttriplet.mine` beside the miners of other libraries: the same triplets, where its options can say them.

A peer that is not installed is left out. docs/mining.md has the options side by side.
"""
