"""Agents: whatever chooses actions, all of them on the same trained world model."""

if __name__ != "worldvae.agents":
    raise ImportError(f"this folder was imported as {__name__!r}: import it as 'worldvae.agents'")
