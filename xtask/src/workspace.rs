//! Where things lie: the workspace, its build artefacts, logs and temporary directories.

use crate::Failure;
use crate::run::Step;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The workspace's root directory.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Which build the suites run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

impl Profile {
    /// The directory with this profile's programs and libraries.
    pub(crate) fn dir(self) -> PathBuf {
        target().join(match self {
            Profile::Release => "release",
            Profile::Debug => "debug",
        })
    }

    /// Builds the whole workspace in this profile, but for this program.
    pub(crate) fn build(self) -> Result<f64, Failure> {
        let mut step = Step::new("cargo")
            .args(["build", "--workspace", "--exclude", "xtask"])
            .cwd(root());
        if self == Profile::Release {
            step = step.arg("--release");
        }
        let done = step.timeout(Duration::from_secs(900)).log("build").run()?;
        if done.ok() {
            Ok(done.seconds)
        } else {
            Err(format!(
                "the build failed, see {}\n{}",
                done.log.display(),
                done.tail(30)
            )
            .into())
        }
    }

    /// The preload library; an error names the command that builds it.
    pub(crate) fn library(self) -> Result<PathBuf, Failure> {
        let path = self.dir().join("libpil4dfs.so");
        if path.is_file() {
            Ok(path)
        } else {
            Err(format!(
                "{} is missing: run cargo build --release --workspace",
                path.display()
            )
            .into())
        }
    }
}

/// The directory of the log files, created on first use.
pub(crate) fn logs() -> PathBuf {
    let dir = target().join("xtask-logs");
    if let Err(error) = std::fs::create_dir_all(&dir) {
        eprintln!("cannot create {}: {error}", dir.display());
    }
    dir
}

/// A directory that is removed, with everything in it, when the value is dropped.
pub(crate) struct TempDir(PathBuf);

static SERIAL: AtomicU32 = AtomicU32::new(0);

impl TempDir {
    /// A new directory `BASE/pil4dfs-WHAT-PID-N`, readable by everyone.
    pub(crate) fn new(base: &Path, what: &str) -> Result<TempDir, Failure> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("pil4dfs-{what}-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        set_mode(&path, 0o755)?;
        Ok(TempDir(path))
    }

    /// The directory's path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Sets the permission bits of a path.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| format!("cannot change the mode of {}: {e}", path.display()).into())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of the runs without privilege: `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// A tmpfs for the native runs.
pub(crate) fn tmpfs() -> &'static Path {
    Path::new("/dev/shm")
}

/// A directory on a disk's file system for pools and disk measurements.
pub(crate) fn disk() -> &'static Path {
    Path::new("/var/tmp")
}
