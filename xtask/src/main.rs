//! Development tasks: `cargo xtask demo|test|bench|install`.
fn main() {}
