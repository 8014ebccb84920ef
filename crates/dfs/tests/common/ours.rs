//! The calls of `ops` on a container, as a front end makes them: what Linux decides about paths
//! before it asks a file system is decided here.

use super::ops::{Answer, Op, UMASK, User};
use dfs::{Cred, Dfs, DirCursor, How, Ino, SetTime, Walk};
use sys::{Errno, Result};

const S_IFMT: u32 = 0o170000;
const S_IFDIR: u32 = 0o040000;

/// Makes a call; the root confines it.
pub(crate) fn run(dfs: &Dfs, user: User, op: &Op) -> Answer {
    run_in(dfs, dfs.root(), user, op)
}

/// Makes a call in the tree below a directory, which confines it.
pub(crate) fn run_in(dfs: &Dfs, top: Ino, user: User, op: &Op) -> Answer {
    let cred = Cred {
        uid: user.uid,
        gid: user.uid,
        groups: user.groups,
        privileged: user.uid == 0,
        umask: UMASK,
    };
    Caller { dfs, top, cred }.run(op).into()
}

struct Caller<'a> {
    dfs: &'a Dfs,
    top: Ino,
    cred: Cred<'a>,
}

/// Where a walk ended.
struct Spot {
    parent: Ino,
    name: Vec<u8>,
    target: Option<Ino>,
    trailing_slash: bool,
}

fn is_dots(place: &Spot) -> bool {
    matches!(place.name.as_slice(), b"." | b"..")
}

impl Caller<'_> {
    fn walk(&self, path: &str, follow: bool) -> Result<Spot> {
        let how = How {
            follow,
            in_root: true,
            ..How::default()
        };
        let mut scratch = [0; 32_768];
        match self
            .dfs
            .walk(&self.cred, self.top, path.as_bytes(), how, &mut scratch)?
        {
            Walk::Here(place) => Ok(Spot {
                parent: place.parent,
                name: place.name.to_vec(),
                target: place.target,
                trailing_slash: place.trailing_slash,
            }),
            Walk::Leave { .. } => panic!("left a confined walk of {path}"),
        }
    }

    fn is_dir(&self, ino: Ino) -> Result<bool> {
        Ok(self.dfs.stat(ino)?.mode & S_IFMT == S_IFDIR)
    }

    /// The inode a path names.
    fn find(&self, path: &str, follow: bool) -> Result<Ino> {
        let place = self.walk(path, follow || path.ends_with('/'))?;
        let ino = place.target.ok_or(Errno::ENOENT)?;
        if place.trailing_slash && !self.is_dir(ino)? {
            return Err(Errno::ENOTDIR);
        }
        Ok(ino)
    }

    /// Where a new name goes.
    fn new_name(&self, path: &str, of_dir: bool) -> Result<Spot> {
        let place = self.walk(path, false)?;
        if is_dots(&place) || place.target.is_some() {
            return Err(Errno::EEXIST);
        }
        if place.trailing_slash && !of_dir {
            return Err(Errno::ENOENT);
        }
        Ok(place)
    }

    fn run(&self, op: &Op) -> Result<Answer> {
        let (dfs, cred) = (self.dfs, &self.cred);
        match op {
            Op::Create {
                path,
                mode,
                exclusive,
            } => self.create(path, *mode, *exclusive)?,
            Op::Mkdir { path, mode } => {
                let place = self.new_name(path, true)?;
                dfs.mkdir(cred, place.parent, place.name.as_slice(), *mode)?;
            }
            Op::Mknod { path, mode, rdev } => {
                match mode & S_IFMT {
                    0o040000 => return Err(Errno::EPERM),
                    0o120000 => return Err(Errno::EINVAL),
                    _ => {}
                }
                let place = self.new_name(path, false)?;
                dfs.mknod(cred, place.parent, place.name.as_slice(), *mode, *rdev)?;
            }
            Op::Symlink { target, path } => {
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                let place = self.new_name(path, false)?;
                dfs.symlink(cred, target.as_bytes(), place.parent, place.name.as_slice())?;
            }
            Op::Link { from, to } => {
                let ino = self.find(from, false)?;
                let place = self.new_name(to, false)?;
                dfs.link(cred, ino, place.parent, place.name.as_slice())?;
            }
            Op::Unlink { path } => self.unlink(path)?,
            Op::Rmdir { path } => {
                let place = self.walk(path, false)?;
                dfs.rmdir(cred, place.parent, place.name.as_slice())?;
            }
            Op::Rename { from, to, flags } => self.rename(from, to, *flags)?,
            _ => return self.attributes(op),
        }
        Ok(Answer::Done)
    }

    fn create(&self, path: &str, mode: u32, exclusive: bool) -> Result<()> {
        let place = self.walk(path, !exclusive && !path.ends_with('/'))?;
        if is_dots(&place) {
            return Err(if exclusive {
                Errno::EEXIST
            } else {
                Errno::EISDIR
            });
        }
        if place.trailing_slash {
            return Err(Errno::EISDIR);
        }
        let name = place.name.as_slice();
        let (ino, new) = self
            .dfs
            .create(&self.cred, place.parent, name, mode, exclusive)?;
        if new {
            return Ok(());
        }
        if self.is_dir(ino)? {
            return Err(Errno::EISDIR);
        }
        self.dfs.access(&self.cred, ino, 4)?;
        // What opening a socket or a device without a driver says.
        match self.dfs.stat(ino)?.mode & S_IFMT {
            0o020000 if self.dfs.stat(ino)?.rdev == 0x103 => Ok(()),
            0o140000 | 0o020000 | 0o060000 => Err(Errno::ENXIO),
            _ => Ok(()),
        }
    }

    fn unlink(&self, path: &str) -> Result<()> {
        let place = self.walk(path, false)?;
        if place.trailing_slash && !is_dots(&place) {
            let ino = place.target.ok_or(Errno::ENOENT)?;
            return Err(if self.is_dir(ino)? {
                Errno::EISDIR
            } else {
                Errno::ENOTDIR
            });
        }
        self.dfs
            .unlink(&self.cred, place.parent, place.name.as_slice())
    }

    fn rename(&self, from: &str, to: &str, flags: u32) -> Result<()> {
        let (no_replace, exchange) = (flags & 1 != 0, flags & 2 != 0);
        if flags & !7 != 0 || exchange && flags & 5 != 0 {
            return Err(Errno::EINVAL);
        }
        let old = self.parent_of(from)?;
        let new = self.parent_of(to)?;
        if is_dots(&old) {
            return Err(Errno::EBUSY);
        }
        if is_dots(&new) {
            return Err(if no_replace {
                Errno::EEXIST
            } else {
                Errno::EBUSY
            });
        }
        let source = self.target(&old)?.ok_or(Errno::ENOENT)?;
        let target = self.target(&new)?;
        match target {
            Some(_) if no_replace => return Err(Errno::EEXIST),
            None if exchange => return Err(Errno::ENOENT),
            Some(ino) if exchange && new.trailing_slash && !self.is_dir(ino)? => {
                return Err(Errno::ENOTDIR);
            }
            _ => {}
        }
        let slashes = old.trailing_slash || !exchange && new.trailing_slash;
        if slashes && !self.is_dir(source)? {
            return Err(Errno::ENOTDIR);
        }
        let (from, to) = (old.name.as_slice(), new.name.as_slice());
        self.dfs
            .rename(&self.cred, old.parent, from, new.parent, to, flags)
    }

    /// The place of a path whose last component is looked up later.
    fn parent_of(&self, path: &str) -> Result<Spot> {
        self.walk(path, false)
    }

    fn target(&self, place: &Spot) -> Result<Option<Ino>> {
        match self
            .dfs
            .lookup(&self.cred, place.parent, place.name.as_slice())
        {
            Err(Errno::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    fn attributes(&self, op: &Op) -> Result<Answer> {
        let (dfs, cred) = (self.dfs, &self.cred);
        match op {
            Op::Chmod { path, mode } => dfs.chmod(cred, self.find(path, true)?, *mode)?,
            Op::Chown {
                path,
                uid,
                gid,
                follow,
            } => {
                dfs.chown(cred, self.find(path, *follow)?, *uid, *gid)?;
            }
            Op::Utimens { path, times } => {
                let ino = self.find(path, true)?;
                let (atime, mtime) = match times {
                    Some((atime, mtime)) => (SetTime::At(*atime), SetTime::At(*mtime)),
                    None => (SetTime::Now, SetTime::Now),
                };
                dfs.utimens(cred, ino, atime, mtime)?;
                if let Some((atime, mtime)) = times {
                    let stat = dfs.stat(ino)?;
                    assert_eq!((stat.atime, stat.mtime), (*atime, *mtime));
                }
            }
            Op::Access { path, mask } => dfs.access(cred, self.find(path, true)?, *mask)?,
            Op::Stat { path, follow } => {
                let stat = dfs.stat(self.find(path, *follow)?)?;
                let size = if stat.mode & S_IFMT == S_IFDIR {
                    0
                } else {
                    stat.size
                };
                return Ok(Answer::Stat {
                    mode: stat.mode,
                    nlink: stat.nlink,
                    uid: stat.uid,
                    gid: stat.gid,
                    rdev: stat.rdev,
                    size,
                });
            }
            Op::Readlink { path } => {
                let mut buf = [0; 4096];
                let len = dfs.readlink(self.find(path, false)?, &mut buf)?;
                return Ok(Answer::Bytes(buf[..len].to_vec()));
            }
            Op::SetXattr {
                path,
                name,
                value,
                flags,
            } => {
                dfs.setxattr(
                    cred,
                    self.find(path, false)?,
                    name.as_bytes(),
                    value,
                    *flags,
                )?;
            }
            Op::GetXattr { path, name } => {
                let mut buf = [0; 4096];
                let ino = self.find(path, false)?;
                let len = dfs.getxattr(cred, ino, name.as_bytes(), &mut buf)?;
                return Ok(Answer::Bytes(buf[..len].to_vec()));
            }
            Op::RemoveXattr { path, name } => {
                dfs.removexattr(cred, self.find(path, false)?, name.as_bytes())?;
            }
            Op::List { path } => return self.list(self.find(path, true)?),
            _ => unreachable!("made elsewhere"),
        }
        Ok(Answer::Done)
    }

    fn list(&self, dir: Ino) -> Result<Answer> {
        if !self.is_dir(dir)? {
            return Err(Errno::ENOTDIR);
        }
        self.dfs.access(&self.cred, dir, 4)?;
        let mut names = Vec::new();
        let mut cursor = DirCursor::default();
        // In small portions, as a program with a small buffer would.
        loop {
            let mut room = 3;
            let before = names.len();
            self.dfs.getdents(dir, &mut cursor, &mut |entry| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                names.push((String::from_utf8_lossy(entry.name).into_owned(), entry.kind));
                true
            })?;
            if names.len() == before {
                break;
            }
        }
        names.sort();
        Ok(Answer::Names(names))
    }
}
