"""The brokers: one module per client library. Each keeps the promises of `ports.Sink`."""
