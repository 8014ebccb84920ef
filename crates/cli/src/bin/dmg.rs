//! The `dmg` command.
fn main() -> std::process::ExitCode {
    daos_cli::dmg_main(std::env::args_os().collect())
}
