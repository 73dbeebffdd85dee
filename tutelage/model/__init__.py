"""Networks: architectures, heads, training, weights, and the exported student."""
