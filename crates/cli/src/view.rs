//! A container's namespace as the command uses it: paths, listings, whole files.

use crate::output::Failure;
use crate::session::Opened;
use daos_types::{ContainerType, Der};
use dfs::{Cred, Dfs, DirCursor, How, Ino, IoVec, Ofd, SetTime, Stat, Walk};
use sys::{Errno, Result};

/// Type bits of a mode.
pub(crate) const S_IFMT: u32 = 0o170_000;
/// Directory.
pub(crate) const S_IFDIR: u32 = 0o040_000;
/// Regular file.
pub(crate) const S_IFREG: u32 = 0o100_000;
/// Symbolic link.
pub(crate) const S_IFLNK: u32 = 0o120_000;

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// An entry of a directory.
pub(crate) struct Entry {
    /// Name.
    pub(crate) name: Vec<u8>,
    /// What it names.
    pub(crate) ino: Ino,
    /// Its attributes.
    pub(crate) stat: Stat,
}

/// Where a path leads.
pub(crate) struct Target {
    /// Directory of the last component.
    pub(crate) parent: Ino,
    /// Last component; `.` for the root.
    pub(crate) name: Vec<u8>,
    /// What it names, if anything.
    pub(crate) ino: Option<Ino>,
    /// The path ended in `/`.
    pub(crate) slash: bool,
}

/// The namespace of a POSIX container, used with the rights of whoever runs the command.
pub(crate) struct View {
    dfs: Dfs,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Opened {
    /// Opens the namespace; `outer` opens the error line.
    pub(crate) fn view(&mut self, outer: &str) -> std::result::Result<View, Failure> {
        if self.meta.kind != ContainerType::Posix {
            return Err(Failure::der(outer, Der::Inval).because(format!(
                "container {} has type {}, files need type POSIX: daos container create \
                 --type=POSIX",
                self.info.uuid,
                self.meta.kind.name()
            )));
        }
        self.ensure_root(outer)?;
        let mounted = Dfs::mount(self.attached, &self.info);
        let dfs = mounted.map_err(|e| Failure::errno(format!("{outer}: mount failed"), e))?;
        let groups = rustix::process::getgroups().unwrap_or_default();
        Ok(View {
            dfs,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.iter().map(|group| group.as_raw()).collect(),
        })
    }
}

impl View {
    /// Whether ownership can be given away.
    pub(crate) fn privileged(&self) -> bool {
        self.uid == 0
    }

    /// Who asks. The mask of the process has been applied where it counts: copies keep modes.
    fn cred(&self) -> Cred<'_> {
        Cred {
            uid: self.uid,
            gid: self.gid,
            groups: &self.groups,
            privileged: self.privileged(),
            umask: 0,
        }
    }

    /// Checks the container; `copies` says whether the copies of all data are compared.
    pub(crate) fn check(
        &self,
        copies: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<dfs::Checked> {
        self.dfs.check_with(copies, progress)
    }

    /// Mends what a check found.
    pub(crate) fn repair(&self, problems: &[dfs::Problem], leaks: dfs::Leaks) -> Result<u64> {
        self.dfs.repair(problems, leaks)
    }

    /// The root directory.
    pub(crate) fn root(&self) -> Ino {
        self.dfs.root()
    }

    /// Walks a path from the root; `follow` says whether a last symbolic link is followed.
    pub(crate) fn walk(&self, path: &[u8], follow: bool) -> Result<Target> {
        let slash = path.last() == Some(&b'/');
        let trimmed = path
            .iter()
            .skip_while(|c| **c == b'/')
            .copied()
            .collect::<Vec<_>>();
        if trimmed.is_empty() {
            let root = self.root();
            return Ok(Target {
                parent: root,
                name: b".".to_vec(),
                ino: Some(root),
                slash: false,
            });
        }
        let how = How {
            follow: follow || slash,
            in_root: true,
            ..How::default()
        };
        let mut scratch = [0; 4096];
        match self
            .dfs
            .walk(&self.cred(), self.root(), &trimmed, how, &mut scratch)?
        {
            Walk::Here(place) => {
                // A slash at the end says that a directory is meant.
                if let Some(ino) = place.target.filter(|_| slash)
                    && self.stat(ino)?.mode & S_IFMT != S_IFDIR
                {
                    return Err(Errno::ENOTDIR);
                }
                Ok(Target {
                    parent: place.parent,
                    name: place.name.to_vec(),
                    ino: place.target,
                    slash,
                })
            }
            Walk::Leave { .. } => Err(Errno::EXDEV),
        }
    }

    /// What a path names.
    pub(crate) fn find(&self, path: &[u8], follow: bool) -> Result<Ino> {
        self.walk(path, follow)?.ino.ok_or(Errno::ENOENT)
    }

    /// Attributes.
    pub(crate) fn stat(&self, ino: Ino) -> Result<Stat> {
        self.dfs.stat(ino)
    }

    /// What a name in a directory names; `None` if nothing.
    pub(crate) fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<Ino>> {
        match self.dfs.lookup(&self.cred(), dir, name) {
            Ok(ino) => Ok(Some(ino)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Entries of a directory sorted by name, without `.` and `..`.
    pub(crate) fn list(&self, dir: Ino) -> Result<Vec<Entry>> {
        self.dfs.access(&self.cred(), dir, 4)?;
        let mut names = Vec::new();
        let mut cursor = DirCursor::default();
        self.dfs.getdents(dir, &mut cursor, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push(entry.name.to_vec());
            }
            true
        })?;
        names.sort();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            // Whatever is removed while the directory is listed is left out.
            if let Some(ino) = self.lookup(dir, &name)?
                && let Ok(stat) = self.stat(ino)
            {
                entries.push(Entry { name, ino, stat });
            }
        }
        Ok(entries)
    }

    /// Target of a symbolic link.
    pub(crate) fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let mut target = vec![0; 4096];
        let len = self.dfs.readlink(ino, &mut target)?;
        target.truncate(len);
        Ok(target)
    }

    /// Makes a directory.
    pub(crate) fn mkdir(&self, dir: Ino, name: &[u8], mode: u32) -> Result<Ino> {
        self.dfs.mkdir(&self.cred(), dir, name, mode)
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(&self, target: &[u8], dir: Ino, name: &[u8]) -> Result<Ino> {
        self.dfs.symlink(&self.cred(), target, dir, name)
    }

    /// Makes a fifo, socket or device node.
    pub(crate) fn mknod(&self, dir: Ino, name: &[u8], mode: u32, rdev: u64) -> Result<Ino> {
        self.dfs.mknod(&self.cred(), dir, name, mode, rdev)
    }

    /// Gives a file another name.
    pub(crate) fn link(&self, ino: Ino, dir: Ino, name: &[u8]) -> Result<()> {
        self.dfs.link(&self.cred(), ino, dir, name)
    }

    /// Removes a name that is no directory.
    pub(crate) fn unlink(&self, dir: Ino, name: &[u8]) -> Result<()> {
        self.dfs.unlink(&self.cred(), dir, name)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, dir: Ino, name: &[u8]) -> Result<()> {
        self.dfs.rmdir(&self.cred(), dir, name)
    }

    /// Sets owner (if allowed), permissions and times, in this order: a change of owner clears
    /// set-id bits, a change of either moves nothing but ctime.
    pub(crate) fn set_attributes(&self, ino: Ino, like: &Attributes) -> Result<()> {
        let cred = self.cred();
        if self.privileged() {
            self.dfs.chown(&cred, ino, Some(like.uid), Some(like.gid))?;
        }
        if like.mode & S_IFMT != S_IFLNK {
            self.dfs.chmod(&cred, ino, like.mode & 0o7777)?;
        }
        self.dfs
            .utimens(&cred, ino, SetTime::At(like.atime), SetTime::At(like.mtime))
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, ino: Ino) -> Result<Open<'_>> {
        let ofd = self.dfs.open(&self.cred(), ino, O_RDONLY)?;
        Ok(Open {
            dfs: &self.dfs,
            ofd,
        })
    }

    /// Moves a name within a directory; what has the new one is replaced.
    pub(crate) fn rename(&self, dir: Ino, from: &[u8], to: &[u8]) -> Result<()> {
        self.dfs.rename(&self.cred(), dir, from, dir, to, 0)
    }

    /// Makes a file that has no name yet and opens it for writing; without a name it is gone when
    /// it is closed.
    pub(crate) fn create_unnamed(&self, dir: Ino) -> Result<(Ino, Open<'_>)> {
        let cred = self.cred();
        let ino = self.dfs.tmpfile(&cred, dir, 0o600)?;
        let ofd = self.dfs.open_created(&cred, ino, O_WRONLY)?;
        Ok((
            ino,
            Open {
                dfs: &self.dfs,
                ofd,
            },
        ))
    }
}

/// What a copy keeps of a file beside its data; times in nanoseconds since the Unix epoch.
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) atime: i64,
    pub(crate) mtime: i64,
}

impl From<&Stat> for Attributes {
    fn from(stat: &Stat) -> Attributes {
        let Stat {
            mode,
            uid,
            gid,
            atime,
            mtime,
            ..
        } = *stat;
        Attributes {
            mode,
            uid,
            gid,
            atime,
            mtime,
        }
    }
}

/// An open file of the container; closed when dropped.
pub(crate) struct Open<'a> {
    dfs: &'a Dfs,
    ofd: Ofd,
}

impl Open<'_> {
    /// Reads at a position; fewer bytes than asked for only at the end of the file.
    #[allow(
        unsafe_code,
        reason = "the namespace takes raw buffers, as system calls do"
    )]
    pub(crate) fn read_at(&self, buffer: &mut [u8], pos: u64) -> Result<usize> {
        let pos = i64::try_from(pos).map_err(|_| Errno::EINVAL)?;
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let iov = [IoVec {
                base: rest.as_mut_ptr(),
                len: rest.len(),
            }];
            // SAFETY: the buffer is borrowed for writing and lives through the call.
            match unsafe { self.dfs.pread(self.ofd, &iov, pos + done as i64) } {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all bytes at a position.
    #[allow(
        unsafe_code,
        reason = "the namespace takes raw buffers, as system calls do"
    )]
    pub(crate) fn write_at(&self, bytes: &[u8], pos: u64) -> Result<()> {
        let pos = i64::try_from(pos).map_err(|_| Errno::EFBIG)?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let iov = [IoVec {
                base: rest.as_ptr().cast_mut(),
                len: rest.len(),
            }];
            // SAFETY: the buffer is only read, and lives through the call.
            match unsafe { self.dfs.pwrite(self.ofd, &iov, pos + done as i64, false) } {
                Ok(0) => return Err(Errno::EIO),
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the length.
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.dfs.ftruncate(self.ofd, len)
    }

    /// The next run of data at or behind a position: start and end; `None` if only a hole follows.
    pub(crate) fn next_data(&self, pos: u64) -> Result<Option<(u64, u64)>> {
        let from = i64::try_from(pos).map_err(|_| Errno::EINVAL)?;
        let start = match self.dfs.seek(self.ofd, from, SEEK_DATA) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(None),
            Err(error) => return Err(error),
        };
        let from = i64::try_from(start).map_err(|_| Errno::EINVAL)?;
        let end = self.dfs.seek(self.ofd, from, SEEK_HOLE)?;
        Ok(Some((start, end)))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // A description that cannot be let go is reclaimed when this process has ended.
        self.dfs.ofd_release(self.ofd).unwrap_or(());
    }
}
