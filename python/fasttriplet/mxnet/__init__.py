"""Everything that needs MXNet itself, imported only when it is used."""
