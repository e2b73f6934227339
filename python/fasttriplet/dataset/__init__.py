"""Where images come from: records, index, order, decoded pixels."""
