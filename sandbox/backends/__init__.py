"""What shuts programs in: one port, its backends, and the processes that start and watch what runs."""
