//! Reading a sysfs tree under a replaceable root, without trust in what is there.
//!
//! Every path is resolved inside the root (openat2 with RESOLVE_IN_ROOT), so absolute links of a
//! copied tree lead to the copy and `..` cannot leave it. Only regular files are read, only their
//! first bytes, never blocking (a FIFO or a device in place of a file is "not there"); directory
//! listings end after a fixed number of entries; loops of links end with ELOOP in the kernel.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::TopologyError;

/// No attribute is longer than a page; CPU lists of the largest machines fit as well.
const FILE_BYTES_MAX: usize = 16 << 10;
/// openat2(2) asks to try again when it loses a race; this often, then the file is "not there".
const OPEN_TRIES_MAX: usize = 1000;
/// Directory entries looked at; the rest of a huge directory is ignored.
const ENTRIES_MAX: usize = 4096;

/// An open root directory.
pub(crate) struct Tree {
    root: OwnedFd,
    /// Whether it is another root than `/`.
    foreign: bool,
    /// False for `/`, and where the kernel has no openat2 (before 5.6, or a container's filter).
    confined: std::cell::Cell<bool>,
}

impl Tree {
    /// Opens `root`.
    pub(crate) fn open(root: &Path) -> Result<Tree, TopologyError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::open(root, flags, Mode::empty())
            .map_err(|e| TopologyError::io(root.display(), e))?;
        // In the real root links lead where they should anyway.
        let foreign = root != Path::new("/");
        Ok(Tree {
            root: opened,
            foreign,
            confined: foreign.into(),
        })
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Option<OwnedFd> {
        // openat2 refuses, with O_PATH, flags that mean nothing there.
        let flags = match flags.contains(OFlags::PATH) {
            true => flags | OFlags::CLOEXEC,
            false => flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..OPEN_TRIES_MAX {
            if !self.confined.get() {
                break;
            }
            match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // A rename anywhere in the system while ".." was resolved.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::PERM) => self.confined.set(false),
                answer => return answer.ok(),
            }
        }
        if self.confined.get() {
            return None;
        }
        fs::openat(&self.root, path, flags, Mode::empty()).ok()
    }

    /// The first bytes of a regular file as text without surrounding blanks; `None` if it is
    /// missing, unreadable, empty or not text.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let file = self.open_at(path, OFlags::RDONLY)?;
        // Below "/" these are the kernel's own files.
        if self.foreign {
            let stat = fs::fstat(&file).ok()?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return None;
            }
        }
        // Nearly all attributes fit here; such files are read in one piece, so less than asked for
        // is the end.
        let mut short = [0; 256];
        let filled = read_retry(&file, &mut short)?;
        if filled < short.len() {
            return tidy(short.get(..filled)?);
        }
        let mut long = vec![0; FILE_BYTES_MAX];
        long.get_mut(..filled)?.copy_from_slice(&short);
        let mut end = filled;
        loop {
            match read_retry(&file, long.get_mut(end..)?)? {
                0 if end < long.len() => return tidy(long.get(..end)?),
                0 => return None,
                count => end += count,
            }
        }
    }

    /// The whole text parsed as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// Names in a directory, sorted, at most [`ENTRIES_MAX`]; empty if there is no directory.
    /// The second value says whether the listing was cut off.
    pub(crate) fn names(&self, path: &str) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let mut cut = false;
        let opened = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY);
        if let Some(dir) = opened.and_then(|fd| fs::Dir::new(fd).ok()) {
            for entry in dir {
                let Ok(entry) = entry else { break };
                if names.len() == ENTRIES_MAX {
                    cut = true;
                    break;
                }
                match entry.file_name().to_str() {
                    Ok("." | "..") | Err(_) => {}
                    Ok(name) => names.push(name.to_owned()),
                }
            }
        }
        names.sort_unstable();
        (names, cut)
    }

    /// Whether `path` exists and is a directory (links followed).
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY)
            .is_some()
    }

    /// Target of the link `path`, not followed.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/')?;
        let parent = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let stat = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return None;
        }
        fs::readlinkat(&parent, name, Vec::new())
            .ok()?
            .into_string()
            .ok()
    }
}

fn read_retry(file: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match rustix::io::read(file, &mut *buffer) {
            Err(Errno::INTR) => {}
            answer => return answer.ok(),
        }
    }
}

fn tidy(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
