//! The `daos` command.
fn main() {}
