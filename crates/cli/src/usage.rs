//! Command-line parsing with the error lines of the DAOS tools.

use crate::output::Failure;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};
use std::ffi::OsString;

/// The outcome of parsing: arguments to act on, or help to print.
pub(crate) enum Parsed {
    /// Go on.
    Matches(Box<ArgMatches>),
    /// Print this and succeed.
    Help(String),
}

/// Parses; errors are worded as DAOS words them.
pub(crate) fn parse(command: Command, args: &[OsString]) -> Result<Parsed, Failure> {
    match command.clone().try_get_matches_from(args) {
        Ok(matches) => Ok(Parsed::Matches(Box::new(matches))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Parsed::Help(error.to_string()))
            }
            _ => Err(reword(&command, args, &error)),
        },
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        _ => None,
    }
}

/// The command that the arguments reach, as far as they name one.
fn reached<'a>(command: &'a Command, args: &[OsString]) -> &'a Command {
    let mut current = command;
    for arg in args.iter().skip(1) {
        let Some(name) = arg.to_str() else { break };
        if let Some(next) = current.find_subcommand(name) {
            current = next;
        }
    }
    current
}

fn choices(command: &Command) -> String {
    let hidden = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    let mut names: Vec<&str> = command
        .get_subcommands()
        .filter(hidden)
        .map(Command::get_name)
        .collect();
    names.sort_unstable();
    match names.split_last() {
        Some((last, [])) => format!("Please use the {last} command"),
        Some((last, rest)) => {
            format!(
                "Please specify one command of: {} or {last}",
                rest.join(", ")
            )
        }
        None => String::new(),
    }
}

/// `-z, --chunk-size` for the flag an error names, `--pool` where there is no short form.
fn flag_name(command: &Command, named: &str) -> String {
    let long = named
        .split([' ', '='])
        .next()
        .unwrap_or_default()
        .trim_start_matches('-');
    let mut flags = command.get_arguments();
    let flag = flags.find(|arg| {
        arg.get_long() == Some(long) || arg.get_short().is_some_and(|c| c.to_string() == long)
    });
    match flag.map(|flag| (flag.get_short(), flag.get_long())) {
        Some((Some(short), Some(long))) => format!("-{short}, --{long}"),
        _ => format!("--{long}"),
    }
}

fn reword(command: &Command, args: &[OsString], error: &clap::Error) -> Failure {
    let invalid = context(error, ContextKind::InvalidArg);
    let at = reached(command, args);
    let message = match error.kind() {
        ErrorKind::UnknownArgument => match invalid.unwrap_or_default() {
            flag if flag.starts_with('-') => {
                let name = flag
                    .split('=')
                    .next()
                    .unwrap_or_default()
                    .trim_start_matches('-');
                format!("unknown flag `{name}'")
            }
            word if at.has_subcommands() => format!("Unknown command `{word}'. {}", choices(at)),
            word => format!("unexpected argument {word:?}"),
        },
        ErrorKind::InvalidSubcommand => {
            let word = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("Unknown command `{word}'. {}", choices(at))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            choices(at)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = invalid.unwrap_or_default();
            format!(
                "the required flag `{}' was not specified",
                flag_name(at, &missing)
            )
        }
        ErrorKind::InvalidValue
            if context(error, ContextKind::InvalidValue)
                .unwrap_or_default()
                .is_empty() =>
        {
            let flag = flag_name(at, &invalid.unwrap_or_default());
            format!("expected argument for flag `{flag}'")
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let flag = flag_name(at, &invalid.unwrap_or_default());
            let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
            format!("invalid argument for flag `{flag}': {value:?}")
        }
        _ => {
            let text = error.to_string();
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        }
    };
    Failure::usage(message)
}

/// A value that does not parse, in the words of the Go flag library DAOS uses.
pub(crate) fn bad_flag(flag: &str, go_type: &str, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!(
        "invalid argument for flag `{flag}' (expected main.{go_type}): {why}"
    ))
}
