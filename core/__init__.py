"""Parts that every other folder builds on; imports none of them."""
