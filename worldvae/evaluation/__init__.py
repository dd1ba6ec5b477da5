"""How well an agent does on episodes that no training plays, and how well a world model foresees them."""
