"""Generator and discriminator families, a file per family."""
