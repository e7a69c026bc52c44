"""A COS JSON v4 store that runs on this machine: durable, strict about signatures, and able to misbehave on request."""
