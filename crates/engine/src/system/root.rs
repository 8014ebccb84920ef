//! The system root: the directory that holds the registry of pools.

use crate::system::SystemError;
use crate::system::fd::{Fd, errno, open_dir};
use rustix::fs::Mode;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Errno;

/// File systems on which pools are refused: no coherent shared mappings, locks or allocation.
const NETWORK: [(u64, &str); 18] = [
    (0x6969, "NFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x517B, "SMB"),
    (0x4750_4653, "GPFS"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0x7375_7245, "Coda"),
    (0x564C, "NCP"),
    (0xAAD7_AAEA, "PanFS"),
];

/// Name of a file system a pool may not lie on.
pub(crate) fn network_name(f_type: u64) -> Option<&'static str> {
    NETWORK
        .iter()
        .find(|(magic, _)| *magic == f_type)
        .map(|(_, name)| *name)
}

/// Refuses a directory on a network file system.
pub(crate) fn check_local(dir: &Fd, path: &Path) -> Result<(), SystemError> {
    let stat = rustix::fs::fstatfs(dir).map_err(|e| SystemError::io("statfs", path, errno(e)))?;
    match network_name(stat.f_type as u64 & 0xFFFF_FFFF) {
        Some(name) => Err(SystemError::NetworkFileSystem {
            path: path.to_owned(),
            name,
        }),
        None => Ok(()),
    }
}

/// Opens a directory of our own: no symbolic link, owned by the caller, `forbidden` mode bits off.
pub(crate) fn open_own_dir(path: &Path, forbidden: Mode) -> Result<Fd, SystemError> {
    let dir = open_dir(path).map_err(|e| SystemError::io("open directory", path, e))?;
    let stat = rustix::fs::fstat(&dir).map_err(|e| SystemError::io("stat", path, errno(e)))?;
    let caller = rustix::process::geteuid().as_raw();
    if stat.st_uid != caller {
        let path = path.to_owned();
        return Err(SystemError::ForeignOwner {
            path,
            owner: stat.st_uid,
            caller,
        });
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(forbidden) {
        return Err(SystemError::OpenToOthers(path.to_owned()));
    }
    Ok(dir)
}

/// Where the pools of this user and machine are registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemRoot {
    path: PathBuf,
    /// Chosen by `DAOS_EMBEDDED_ROOT` rather than by default.
    chosen: bool,
}

impl SystemRoot {
    /// The root named by the value of `DAOS_EMBEDDED_ROOT`, else `/var/tmp/daos-UID`.
    ///
    /// Nothing is touched yet; an empty value counts as unset, a relative one is refused.
    pub fn locate(embedded_root: Option<&[u8]>) -> Result<SystemRoot, SystemError> {
        match embedded_root.filter(|value| !value.is_empty()) {
            Some(value) => {
                let path = PathBuf::from(OsStr::from_bytes(value));
                if path.is_absolute() {
                    Ok(SystemRoot { path, chosen: true })
                } else {
                    Err(SystemError::RelativeRoot(path))
                }
            }
            None => {
                let uid = rustix::process::geteuid().as_raw();
                let path = PathBuf::from(format!("/var/tmp/daos-{uid}"));
                Ok(SystemRoot {
                    path,
                    chosen: false,
                })
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directory of all pools.
    pub(crate) fn pools(&self) -> PathBuf {
        self.path.join("pools")
    }

    /// Link of a label.
    pub(crate) fn label_link(&self, label: &str) -> PathBuf {
        self.path.join("labels").join(label)
    }

    /// Checks owner, mode and file system; `Ok(None)` if the root does not exist yet.
    pub(crate) fn open(&self) -> Result<Option<Fd>, SystemError> {
        // The default lies in a directory anybody can write to; a chosen one may be shared for
        // reading, and keeps its pools in directories of mode 0700 all the same.
        let forbidden = if self.chosen {
            Mode::WOTH
        } else {
            Mode::RWXG | Mode::RWXO
        };
        match open_own_dir(&self.path, forbidden) {
            Ok(dir) => {
                check_local(&dir, &self.path)?;
                Ok(Some(dir))
            }
            Err(SystemError::Io {
                errno: Errno::ENOENT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`SystemRoot::open`], making what is missing.
    pub(crate) fn open_or_create(&self) -> Result<Fd, SystemError> {
        make_dir(&self.path)?;
        let dir = self.open()?;
        let dir = dir.ok_or_else(|| SystemError::io("open", &self.path, Errno::ENOENT))?;
        for sub in [self.pools(), self.path.join("labels")] {
            make_dir(&sub)?;
            open_own_dir(&sub, Mode::RWXG | Mode::RWXO)?;
        }
        Ok(dir)
    }
}

/// Makes a directory of mode 0700; one that exists is left alone.
pub(crate) fn make_dir(path: &Path) -> Result<(), SystemError> {
    match rustix::fs::mkdir(path, Mode::RWXU).map_err(errno) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(SystemError::io("make directory", path, error)),
    }
}
