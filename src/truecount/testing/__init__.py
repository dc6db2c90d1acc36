"""What proves a store, and what a user's own tests can use."""
