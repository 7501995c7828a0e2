//! What the service does, one use case per file: domain types in, domain types out.

pub mod import_line;
