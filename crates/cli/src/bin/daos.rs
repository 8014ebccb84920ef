//! The `daos` command.
fn main() -> std::process::ExitCode {
    daos_cli::daos_main(std::env::args_os().collect())
}
