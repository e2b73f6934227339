"""For Windows: importing the package ends with a sentence, and not in the middle of something else."""

try:
    import fasttriplet  # noqa: F401
except ImportError as error:
    assert str(error).startswith("fasttriplet does not run on Windows"), error
else:
    raise AssertionError("it was imported")
