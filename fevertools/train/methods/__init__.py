"""Training methods: what a batch is and which losses it gives. The loop knows nothing of either."""
