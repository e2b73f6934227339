"""A folder of images to a ``.rec``: its tree, its pictures, the files that are written."""
