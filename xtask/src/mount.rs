//! A pool and a container of their own for one suite, seen through the preload library.

use crate::Failure;
use crate::place::Place;
use crate::run::{Done, Step};
use crate::workspace::{self, Profile, TempDir};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files and directories in three copies: the redundancy the suites run with.
pub(crate) const THREE_COPIES: &[&str] = &["--oclass=RP_3GX", "--dir-oclass=RP_3G1"];
/// Files without redundancy, directories in three copies.
pub(crate) const PLAIN_FILES: &[&str] = &["--file-oclass=SX", "--dir-oclass=RP_3G1"];

const POOL: &str = "tank";
const CONTAINER: &str = "c1";

/// A mounted container. Dropping it destroys the pool and removes its system root.
pub(crate) struct Mount {
    /// Where programs of the suite work.
    pub(crate) place: Place,
    stage: TempDir,
    root: TempDir,
    user: Option<u32>,
}

impl Mount {
    /// Creates a pool of `size` and a container with these options, owned by `user`, and a work directory in it.
    /// The mount path must not exist in the kernel, so that whatever escapes interception fails.
    pub(crate) fn new(
        profile: Profile,
        user: Option<u32>,
        size: &str,
        options: &[&str],
    ) -> Result<Mount, Failure> {
        let mount_point = Path::new("/pil4dfs-mount");
        if mount_point.exists() {
            return Err(format!(
                "{} exists: the tests need a path that does not",
                mount_point.display()
            )
            .into());
        }
        let stage = TempDir::new(workspace::disk(), "stage")?;
        for name in ["libpil4dfs.so", "daos", "dmg"] {
            let from = profile.dir().join(name);
            std::fs::copy(&from, stage.path().join(name))
                .map_err(|e| format!("{}: {e}", from.display()))?;
        }
        let root = TempDir::new(workspace::disk(), "root")?;
        workspace::set_mode(root.path(), 0o700)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(root.path(), Some(user), Some(user))?;
        }
        let env: Vec<(String, OsString)> = [
            (
                "LD_PRELOAD",
                stage.path().join("libpil4dfs.so").into_os_string(),
            ),
            ("D_IL_MOUNT_POINT", mount_point.into()),
            ("D_IL_POOL", POOL.into()),
            ("D_IL_CONTAINER", CONTAINER.into()),
            ("DAOS_EMBEDDED_ROOT", root.path().into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let place = Place::mounted("mount", mount_point.join("work"), env, user);
        let mount = Mount {
            place,
            stage,
            root,
            user,
        };
        mount.expect("dmg", &["pool", "create", POOL, "--size", size])?;
        let mut create = vec!["container", "create", "--type=POSIX"];
        create.extend_from_slice(options);
        create.extend([POOL, CONTAINER]);
        mount.expect("daos", &create)?;
        mount.place.make_dir("", "mount")?;
        Ok(mount)
    }

    /// System root, pool and container, as programs are given them.
    pub(crate) fn names(&self) -> [OsString; 3] {
        [self.root.path().into(), POOL.into(), CONTAINER.into()]
    }

    /// Removes the pool's shared memory, as a restart of the machine would; returns the bytes of log that
    /// the next process has to recover from.
    pub(crate) fn lose_arena(&self) -> Result<f64, Failure> {
        let done = self.expect("dmg", &["pool", "query", POOL, "--json"])?;
        let all: serde_json::Value = serde_json::from_str(&done.stdout)?;
        let found = all.pointer("/response/embedded/log_used_bytes");
        let Some(bytes) = found.and_then(serde_json::Value::as_f64) else {
            return Err("dmg pool query --json tells no log_used_bytes".into());
        };
        for arena in self.arenas() {
            std::fs::remove_file(arena)?;
        }
        Ok(bytes)
    }

    /// The same with the logs of a machine that was off since: what they say of data is not believed
    /// without proof.
    pub(crate) fn lose_power(&self) -> Result<f64, Failure> {
        use std::os::unix::fs::FileExt;
        /// Where a log names the start of the machine (FORMAT.md).
        const LOG_BOOT: u64 = 5 * 8;
        let bytes = self.lose_arena()?;
        for rank in self.pools().flat_map(|pool| entries(&pool)) {
            let log = rank.join("log");
            if log.exists() {
                let log = std::fs::File::options().write(true).open(log)?;
                log.write_all_at(&[1; 8], LOG_BOOT)?;
                log.sync_all()?;
            }
        }
        Ok(bytes)
    }

    /// Runs `daos` or `dmg` on this mount's system root.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Result<Done, Failure> {
        Step::new(self.stage.path().join(program))
            .args(args.iter().copied())
            .env("DAOS_EMBEDDED_ROOT", self.root.path())
            .user(self.user)
            .timeout(Duration::from_secs(60))
            .log("mount")
            .run()
    }

    /// Where the shared memory of this system root's pools lies.
    fn arenas(&self) -> Vec<PathBuf> {
        self.pools()
            .map(|pool| workspace::tmpfs().join(arena_name(&pool)))
            .collect()
    }

    /// The directories of this system root's pools.
    fn pools(&self) -> impl Iterator<Item = PathBuf> {
        entries(&self.root.path().join("pools"))
    }

    fn expect(&self, program: &str, args: &[&str]) -> Result<Done, Failure> {
        let done = self.command(program, args)?;
        if done.ok() {
            Ok(done)
        } else {
            Err(format!(
                "{program} {}: {}: {}",
                args.join(" "),
                done.ending(),
                done.tail(5)
            )
            .into())
        }
    }

    /// The directory with the copies of the library and the commands.
    pub(crate) fn stage(&self) -> &Path {
        self.stage.path()
    }

    /// The value of one of the variables that make the mount visible.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.place
            .env
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The mount's root path.
    pub(crate) fn point(&self) -> PathBuf {
        self.place
            .dir
            .parent()
            .unwrap_or(Path::new("/"))
            .to_path_buf()
    }
}

/// What a directory holds; nothing if it cannot be read.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
    found.map(|entry| entry.path())
}

/// Name of the file with the shared memory of the pool in a directory of the registry.
pub(crate) fn arena_name(pool: &Path) -> String {
    let uuid = pool.file_name().unwrap_or_default().to_string_lossy();
    format!("daos-{}", uuid.replace('-', ""))
}

impl Drop for Mount {
    fn drop(&mut self) {
        let arenas = self.arenas();
        match self.command("dmg", &["pool", "destroy", POOL, "--force"]) {
            Ok(done) if done.ok() => {}
            Ok(done) => eprintln!("pool destroy: {}: {}", done.ending(), done.tail(3)),
            Err(error) => eprintln!("pool destroy: {error}"),
        }
        for left in arenas.iter().filter(|path| path.exists()) {
            eprintln!("pool destroy left {}", left.display());
            std::fs::remove_file(left).ok();
        }
    }
}
