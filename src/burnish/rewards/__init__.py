"""What a completion is worth: rewards, and the processes that run them."""
