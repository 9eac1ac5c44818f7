"""Publishing: pack a notebook with what it needs, try it, send it to the hub's apps service, list what is there."""
