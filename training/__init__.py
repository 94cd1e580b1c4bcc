"""Train GAN generators on a shop's own pictures and export them as bundles."""
