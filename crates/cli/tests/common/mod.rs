//! A system of its own for each test, and the built commands run on it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What a command left behind.
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// A temporary system root; its pools are destroyed with it.
pub(crate) struct System {
    dir: tempfile::TempDir,
}

impl System {
    /// A system without pools.
    pub(crate) fn new() -> System {
        System {
            dir: tempfile::tempdir().expect("temporary directory"),
        }
    }

    /// A system with the pool `tank`: `ranks` ranks of 4 targets, 64 MiB.
    pub(crate) fn with_tank(ranks: u16) -> System {
        let system = System::new();
        let ranks = format!("--nranks={ranks}");
        system
            .dmg(&[
                "pool",
                "create",
                "tank",
                "--size=64MiB",
                &ranks,
                "--targets-per-rank=4",
            ])
            .ok();
        system
    }

    /// Makes a POSIX container in `tank`, of class `oclass` if one is named.
    pub(crate) fn container(&self, label: &str, oclass: &str) {
        let class = format!("--oclass={oclass}");
        let mut args = vec!["container", "create", "--type=POSIX"];
        if !oclass.is_empty() {
            args.push(&class);
        }
        self.daos(&[&args[..], &["tank", label]].concat()).ok();
    }

    /// The system root.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A scratch directory beside the root.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command on this system, without the variables of the caller.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let path = match program {
            "dmg" => env!("CARGO_BIN_EXE_dmg"),
            _ => env!("CARGO_BIN_EXE_daos"),
        };
        let mut command = Command::new(path);
        command
            .args(args)
            .env("DAOS_EMBEDDED_ROOT", self.root())
            .stdin(Stdio::null());
        for name in ["DAOS_POOL", "DAOS_CONT", "LD_PRELOAD"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Ran {
        run(&mut self.command(program, args))
    }

    /// Runs `daos`.
    pub(crate) fn daos(&self, args: &[&str]) -> Ran {
        self.run("daos", args)
    }

    /// Runs `dmg`.
    pub(crate) fn dmg(&self, args: &[&str]) -> Ran {
        self.run("dmg", args)
    }

    /// Every path below the root with its size and, for small files, its contents; times and the
    /// attach file are left out, for looking at a pool changes them.
    pub(crate) fn snapshot(&self) -> Vec<(PathBuf, u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut queue = vec![self.root()];
        while let Some(dir) = queue.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let data = entry.path().symlink_metadata().expect("metadata");
                if entry.file_name() == "attach" {
                    continue;
                }
                if data.is_dir() {
                    queue.push(entry.path());
                }
                let small = data.is_file() && data.len() < 1 << 20;
                let bytes = if small {
                    std::fs::read(entry.path())
                } else {
                    Ok(Vec::new())
                };
                let size = if data.is_file() { data.len() } else { 0 };
                found.push((entry.path(), size, bytes.expect("readable")));
            }
        }
        found.sort();
        found
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root().join("pools"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            self.dmg(&["pool", "destroy", &name, "--force"]);
        }
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the command starts");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    /// Asserts success in silence on stderr; returns stdout.
    pub(crate) fn ok(self) -> String {
        assert_eq!(
            (self.code, self.err.as_str()),
            (0, ""),
            "stdout: {}",
            self.out
        );
        self.out
    }

    /// Asserts failure with one error line that contains every text; returns the line.
    pub(crate) fn fails(self, texts: &[&str]) -> String {
        assert_eq!(self.code, 1, "stdout: {} stderr: {}", self.out, self.err);
        assert_eq!(self.err.lines().count(), 1, "{:?}", self.err);
        assert!(self.err.starts_with("ERROR: "), "{:?}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "{:?} lacks {text:?}", self.err);
        }
        self.err
    }

    /// Parses stdout as the JSON envelope.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.out).expect("JSON on stdout")
    }
}

/// Writes a file, making its directory.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
    std::fs::write(path, bytes).expect("written");
}

/// The root of which a process started by [`Holder::of`] opens the container.
const HOLD: &str = "DAOS_CLI_TESTS_HOLD";

/// A process that has the container `c1` of `tank` open, and writes a checkpoint first. The test file needs a test `holder` that
/// calls [`hold`].
pub(crate) struct Holder {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts it on this root.
    pub(crate) fn of(root: &Path) -> Holder {
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "holder", "--nocapture"])
            .env(HOLD, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("holder");
        let mut output = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            let read = output.read_line(&mut line).expect("read");
            assert_ne!(read, 0, "the holder has ended");
        }
        Holder { child, output }
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end.
    pub(crate) fn end(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("read");
        let ended = self.child.wait().expect("ended");
        assert!(ended.success(), "{rest}");
    }
}

/// The other side of [`Holder`]; does nothing in a run of its own.
pub(crate) fn hold() {
    let Some(root) = std::env::var_os(HOLD) else {
        return;
    };
    let root = engine::system::SystemRoot::locate(Some(root.as_encoded_bytes())).expect("root");
    let tank = "tank".parse().expect("label");
    let (_, pool, _) = root.open_container(&tank, "c1").expect("open");
    pool.checkpoint().expect("checkpoint");
    println!("ready");
    let read = std::io::stdin().read_line(&mut String::new());
    assert_eq!(read.expect("read"), 0);
}
