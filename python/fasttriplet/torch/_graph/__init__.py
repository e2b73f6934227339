"""Converts graphs of MXNet to modules of PyTorch.

`_build` visits the nodes of a graph in their order. For each node it makes an `Operator` (`_operator`) and
calls a builder, which the table in `_operators` names. The builder reads the attributes (`_attributes`) and
adds calls, sub-modules and parameters to the `Assembly` (`_assembly`). The result is a `ConvertedNetwork`
(`_network`).
"""
