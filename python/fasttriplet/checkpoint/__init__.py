"""MXNet's checkpoints, read and written without MXNet.

A network is read, and the part of it that computes the embedding is cut out::

    checkpoint = read_checkpoint(prefix, epoch)       # of _checkpoint: symbol, arg_params, aux_params, paths
    embedding = embedding_of(checkpoint, "fc1")       # symbol, data, output; no weight of it is missing
    for node in embedding.symbol.nodes:               # of _symbol: op, name, attributes, inputs, annotations
        ...
    write_checkpoint(prefix, epoch, symbol, arg_params, aux_params)

`_symbol` is the graph, whatever version of MXNet wrote it: `Symbol` with `Node` and `Entry` (an output of a
node), `parse_symbol`, `Symbol.to_json`, `Symbol.up_to` (the part that leads to some outputs). `_operators`
knows what a graph does not say about its operators. `_outputs` finds the images and the embedding.
`_params` reads and writes files of arrays.
"""
