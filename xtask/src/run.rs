//! Child processes with a timeout: own process group, output to log files, no stdin.

use crate::Failure;
use crate::workspace;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A child process to be run.
pub(crate) struct Step {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    unset: Vec<String>,
    cwd: Option<PathBuf>,
    timeout: Duration,
    log: String,
    user: Option<u32>,
}

/// What became of it.
pub(crate) struct Done {
    /// Exit code; a signal is 128 + its number, a timeout 124.
    pub(crate) code: i32,
    /// It was killed because its time was up.
    pub(crate) timed_out: bool,
    /// Wall-clock time.
    pub(crate) seconds: f64,
    /// Everything it wrote to stdout.
    pub(crate) stdout: String,
    /// Everything it wrote to stderr.
    pub(crate) stderr: String,
    /// The log file the output was appended to.
    pub(crate) log: PathBuf,
}

/// Does `work` for each item, as many at a time as there are processors; results in the items' order.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            let result = work(item);
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((at, result));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

impl Step {
    /// A child that runs `program`, found through PATH, for at most a minute.
    pub(crate) fn new(program: impl Into<OsString>) -> Step {
        Step {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            unset: Vec::new(),
            cwd: None,
            timeout: Duration::from_secs(60),
            log: "commands".to_owned(),
            user: None,
        }
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Step {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Step {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Step {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Removes a variable.
    pub(crate) fn unset(mut self, name: &str) -> Step {
        self.unset.push(name.to_owned());
        self
    }

    /// Sets the directory it starts in.
    pub(crate) fn cwd(mut self, dir: impl Into<PathBuf>) -> Step {
        self.cwd = Some(dir.into());
        self
    }

    /// Sets the time after which it is killed.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Step {
        self.timeout = timeout;
        self
    }

    /// Names the log file, without its ending.
    pub(crate) fn log(mut self, name: &str) -> Step {
        self.log = name.to_owned();
        self
    }

    /// Runs it as this user and group, without supplementary groups; needs root.
    pub(crate) fn user(mut self, user: Option<u32>) -> Step {
        self.user = user;
        self
    }

    /// Runs the child to its end or its timeout. Fails only when it cannot be started.
    pub(crate) fn run(self) -> Result<Done, Failure> {
        let log = workspace::logs().join(format!("{}.log", self.log));
        let line = self.line();
        let mut command = self.command();
        let scratch = workspace::TempDir::new(&std::env::temp_dir(), "out")?;
        let (out, err) = (scratch.path().join("out"), scratch.path().join("err"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        command.process_group(0);
        let start = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|e| format!("cannot run {line}: {e}"))?;
        let status = wait(&mut child, self.timeout)?;
        let seconds = start.elapsed().as_secs_f64();
        end_group(child.id());
        let done = Done {
            code: status.map_or(124, code_of),
            timed_out: status.is_none(),
            seconds,
            stdout: text(&out)?,
            stderr: text(&err)?,
            log,
        };
        done.append_to_log(&line)?;
        Ok(done)
    }

    fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.env {
            line.push_str(&format!("{name}={} ", value.to_string_lossy()));
        }
        line.push_str(&self.program.to_string_lossy());
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    fn command(&self) -> Command {
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                let id = user.to_string();
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "env"]);
                for (name, value) in &self.env {
                    let mut pair = OsString::from(format!("{name}="));
                    pair.push(value);
                    command.arg(pair);
                }
                command.arg(&self.program);
                command
            }
            None => {
                let mut command = Command::new(&self.program);
                command.envs(self.env.iter().map(|(name, value)| (name, value)));
                command
            }
        };
        command.args(&self.args);
        for name in &self.unset {
            command.env_remove(name);
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command
    }
}

impl Done {
    /// It ended by itself with exit code 0.
    pub(crate) fn ok(&self) -> bool {
        self.code == 0 && !self.timed_out
    }

    /// How it ended, for people.
    pub(crate) fn ending(&self) -> String {
        match self.code {
            _ if self.timed_out => format!("timed out after {:.0} s", self.seconds),
            code if code > 128 && code < 193 => format!("ended by signal {}", code - 128),
            code => format!("exit code {code}"),
        }
    }

    /// The last `lines` lines of its stderr, or of its stdout when that is empty.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let from = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        let all: Vec<&str> = from.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The last `lines` lines of its stderr.
    pub(crate) fn tail_of_stderr(&self, lines: usize) -> String {
        let all: Vec<&str> = self.stderr.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn append_to_log(&self, line: &str) -> Result<(), Failure> {
        let mut file = File::options().create(true).append(true).open(&self.log)?;
        writeln!(file, "$ {line}\n{}{}", self.stdout, self.stderr)?;
        writeln!(file, "# {}, {:.2} s", self.ending(), self.seconds)?;
        Ok(())
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(255)
}

fn wait(child: &mut std::process::Child, limit: Duration) -> Result<Option<ExitStatus>, Failure> {
    let start = Instant::now();
    let mut nap_us = 200;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            end_group(child.id());
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_micros(nap_us));
        nap_us = (nap_us * 2).min(20_000);
    }
}

/// Kills what is left of a child's process group; only processes this program started are in it.
fn end_group(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // The group is usually gone already: ESRCH is the normal answer.
        kill_process_group(pid, Signal::KILL).ok();
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a program of this name is on PATH.
pub(crate) fn on_path(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}
