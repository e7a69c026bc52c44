"""An emulator of the COS JSON v4 store: durable, strict about signatures, with faults on request."""
