"""worldvae: learn a world as a sequential VAE, plan in its latent space, film its dreams."""
