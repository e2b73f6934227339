"""How well a model tells same from different."""
