"""Environments: any Gymnasium id as rows of observations, rewards and float action vectors."""

if __name__ != "worldvae.envs":
    raise ImportError(f"this folder was imported as {__name__!r}: import it as 'worldvae.envs'")
