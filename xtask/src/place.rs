//! The places a suite runs in: a directory of tmpfs, a directory of the disk, a directory of a mount.

use crate::Failure;
use crate::run::Step;
use crate::workspace::{self, TempDir};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where programs work, and what they need in their environment to do so.
pub(crate) struct Place {
    /// Short name for tables and logs.
    pub(crate) label: String,
    /// The directory given to programs; it exists inside the place.
    pub(crate) dir: PathBuf,
    /// Variables that make the place visible.
    pub(crate) env: Vec<(String, OsString)>,
    /// The user programs run as, if not this process's.
    pub(crate) user: Option<u32>,
    /// Removed with the place.
    _temp: Option<TempDir>,
}

impl Place {
    /// A directory of a kernel file system.
    pub(crate) fn native(label: &str, base: &Path, user: Option<u32>) -> Result<Place, Failure> {
        let temp = TempDir::new(base, "work")?;
        if let Some(user) = user {
            std::os::unix::fs::chown(temp.path(), Some(user), Some(user))?;
        }
        let dir = temp.path().to_path_buf();
        Ok(Place {
            label: label.to_owned(),
            dir,
            env: Vec::new(),
            user,
            _temp: Some(temp),
        })
    }

    /// A directory that is only visible with these variables.
    pub(crate) fn mounted(
        label: &str,
        dir: PathBuf,
        env: Vec<(String, OsString)>,
        user: Option<u32>,
    ) -> Place {
        Place {
            label: label.to_owned(),
            dir,
            env,
            user,
            _temp: None,
        }
    }

    /// A child that runs in this place, with a fixed environment but for what the place adds.
    pub(crate) fn step(&self, program: impl Into<OsString>) -> Step {
        let mut step = Step::new("env")
            .arg("-i")
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args([
                "LC_ALL=C",
                "TZ=UTC",
                "HOME=/nonexistent",
                "USER=tester",
                "TERM=dumb",
            ]);
        for (name, value) in &self.env {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            step = step.arg(pair);
        }
        step.arg(program).cwd("/").user(self.user)
    }

    /// Makes a directory for one program and gives its path.
    pub(crate) fn make_dir(&self, name: &str, log: &str) -> Result<PathBuf, Failure> {
        let dir = self.dir.join(name);
        let done = self.step("mkdir").arg("-p").arg(&dir).log(log).run()?;
        if done.ok() {
            Ok(dir)
        } else {
            Err(format!(
                "mkdir {} ({}): {}: {}",
                dir.display(),
                self.label,
                done.ending(),
                done.tail(3)
            )
            .into())
        }
    }
}

/// The directory for what tests compile.
pub(crate) fn artefacts() -> Result<PathBuf, Failure> {
    let dir = workspace::target().join("c-tests");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
