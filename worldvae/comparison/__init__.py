"""One thing exchanged and everything else kept: what that one thing is worth."""
