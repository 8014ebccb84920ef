//! What a command says: text or one JSON object on stdout, one error line on stderr.

use daos_types::Der;
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use sys::Errno;

/// The envelope of every `--json` answer.
#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    response: Option<&'a T>,
    error: Option<&'a str>,
    status: i32,
}

fn pretty<T: Serialize>(value: &T) -> String {
    // Answers are plain structures with string keys; those always serialise.
    serde_json::to_string_pretty(value).unwrap_or_else(|_| "null".to_owned())
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The line after `ERROR: daos: `.
    pub(crate) message: String,
    /// `status` of the JSON object: a DAOS error number.
    pub(crate) status: i32,
    /// Lines DAOS prints on stderr before that one.
    pub(crate) lead: Vec<String>,
    /// Lines DAOS prints on stdout before any error.
    pub(crate) spoken: String,
    /// `response` of the JSON object: what was done or found before the failure.
    pub(crate) response: Option<serde_json::Value>,
    /// Wrong usage: no JSON object is printed.
    pub(crate) usage: bool,
    /// Exit code of the command.
    pub(crate) exit_code: u8,
}

impl Failure {
    /// A failure with a DAOS error behind it: `outer: DER_X(-N): text`.
    pub(crate) fn der(outer: impl Into<String>, der: Der) -> Failure {
        let outer = outer.into();
        let message = if outer.is_empty() {
            der.to_string()
        } else {
            format!("{outer}: {der}")
        };
        Failure {
            status: der.code(),
            ..Failure::plain(message)
        }
    }

    /// A failure without a DAOS error number.
    pub(crate) fn plain(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            status: Der::Misc.code(),
            lead: Vec::new(),
            spoken: String::new(),
            response: None,
            usage: false,
            exit_code: 1,
        }
    }

    /// Arguments that cannot be understood.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure {
            usage: true,
            ..Failure::plain(message)
        }
    }

    /// A failure of the POSIX layer: `outer: errno N (text)`.
    pub(crate) fn errno(outer: impl Into<String>, errno: Errno) -> Failure {
        let outer = outer.into();
        let status = Der::from_errno(errno.code()).code();
        let message = format!("{outer}: errno {} ({errno})", errno.code());
        Failure {
            status,
            ..Failure::plain(message)
        }
    }

    /// Puts what was being done in front.
    pub(crate) fn under(mut self, outer: &str) -> Failure {
        self.message = format!("{outer}: {}", self.message);
        self
    }

    /// Appends what the matter is and how to cure it.
    pub(crate) fn because(mut self, hint: impl std::fmt::Display) -> Failure {
        self.message = format!("{} ({hint})", self.message);
        self
    }
}

impl From<engine::system::SystemError> for Failure {
    fn from(error: engine::system::SystemError) -> Failure {
        Failure::der("", error.der()).because(error)
    }
}

/// A command's answer.
pub(crate) struct Reply {
    /// For people; printed without `--json`.
    pub(crate) text: String,
    /// For programs; made only with `--json`.
    pub(crate) json: Option<String>,
}

/// What every command needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    /// `daos` or `dmg`.
    pub(crate) name: &'static str,
    /// `--json` was given.
    pub(crate) json: bool,
}

impl Tool {
    /// The answer of a command that went on behind failures: it says what it has, then fails.
    pub(crate) fn reply_and<T: Serialize>(
        self,
        mut failures: Vec<Failure>,
        text: String,
        response: &T,
    ) -> Result<Reply, Failure> {
        let Some(last) = failures.pop() else {
            return self.reply(text, response);
        };
        let lead = failures.into_iter().map(|failure| failure.message);
        Err(Failure {
            lead: lead.collect(),
            spoken: text,
            response: serde_json::to_value(response).ok(),
            ..last
        })
    }

    /// The answer of a successful command.
    pub(crate) fn reply<T: Serialize>(self, text: String, response: &T) -> Result<Reply, Failure> {
        let envelope = Envelope {
            response: Some(response),
            error: None,
            status: 0,
        };
        Ok(Reply {
            text,
            json: self.json.then(|| pretty(&envelope)),
        })
    }

    /// The answer of a command that has nothing to report.
    pub(crate) fn done(self, text: impl Into<String>) -> Result<Reply, Failure> {
        let envelope: Envelope<'_, ()> = Envelope {
            response: None,
            error: None,
            status: 0,
        };
        Ok(Reply {
            text: text.into(),
            json: self.json.then(|| pretty(&envelope)),
        })
    }

    /// Prints the outcome; the exit code of a failure is 1 unless it has one of its own.
    pub(crate) fn finish(self, outcome: Result<Reply, Failure>) -> ExitCode {
        match outcome {
            Ok(Reply { text, json }) => {
                let said = match json {
                    Some(json) => speak(&format!("{json}\n")),
                    None => speak(&text),
                };
                match said {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
                    Err(error) => {
                        self.complain(&Failure {
                            usage: true,
                            ..Failure::plain(format!("writing output: {error}"))
                        });
                        ExitCode::FAILURE
                    }
                }
            }
            Err(failure) => {
                self.complain(&failure);
                ExitCode::from(failure.exit_code)
            }
        }
    }

    fn complain(self, failure: &Failure) {
        if self.json && !failure.usage {
            let error = Some(failure.message.as_str());
            let envelope = Envelope {
                response: failure.response.as_ref(),
                error,
                status: failure.status,
            };
            say(&format!("{}\n", pretty(&envelope)));
        } else {
            say(&failure.spoken);
        }
        let mut lines = String::new();
        for line in &failure.lead {
            lines.push_str(&format!("ERROR: {}\n", one_line(line)));
        }
        lines.push_str(&format!(
            "ERROR: {}: {}\n",
            self.name,
            one_line(&failure.message)
        ));
        // Nobody is left to be told when stderr is closed; the exit code still says it.
        std::io::stderr().write_all(lines.as_bytes()).unwrap_or(());
    }
}

/// Keeps an error on one line, whatever a path or label contains.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Writes to stdout; `false` when nobody listens any more.
pub(crate) fn say(text: &str) -> bool {
    speak(text).is_ok()
}

fn speak(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}
