"""What units mean, and what a change did: the room for network dissection, between the engine and the app."""
