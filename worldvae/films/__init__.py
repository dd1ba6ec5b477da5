"""Films of what happened and of what was dreamt."""
