# What a worker prints when it takes messages.
READY = "The worker is ready."
