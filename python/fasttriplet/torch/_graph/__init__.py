"""Graphs of MXNet as modules of PyTorch.

`_build` goes through a graph. For each node it makes an `Operator` (`_operator`), and calls the builder that
`_operators` has for it, from the file of its kind. A builder reads the attributes (`_attributes`) and adds
calls, sub-modules and parameters to the `Assembly` (`_assembly`). The result is a `ConvertedNetwork`
(`_network`).
"""
