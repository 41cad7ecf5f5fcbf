"""Programs that stand in for images which tutorials use. Each is one file of the standard library only."""
