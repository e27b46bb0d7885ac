"""Device facts and costs computed from the IR alone. Nothing here queries the running machine."""
