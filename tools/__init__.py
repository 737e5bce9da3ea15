"""What keeps the project, and is no part of what is installed."""
