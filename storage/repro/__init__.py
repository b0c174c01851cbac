"""The same again: the checkout, step keys, reuse, verification."""
