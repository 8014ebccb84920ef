//! The `dmg` command.
fn main() {}
