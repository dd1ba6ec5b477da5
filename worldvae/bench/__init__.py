"""How fast this machine is, and how much of it is used."""
