//! The ledger: durable, hash-chained, signed records of every decision.
