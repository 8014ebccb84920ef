//! Copying files and trees between the container and the kernel's file systems: modes, times,
//! owners (for root), symbolic and hard links, holes and special files are kept.
//!
//! A copy gets its name when it is complete: whoever ends early, for whatever reason, leaves what
//! had the name before.

use crate::progress::Bar;
use crate::session::now_ns;
use crate::view::{Attributes, Open, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, View};
use dfs::{Ino, Stat};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode as Permissions, OFlags, SeekFrom, Timespec, Timestamps,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use sys::Errno;

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 4 << 20;
/// Bytes read at a time where nobody knows how many there are; some files of /proc refuse more.
const UNKNOWN_BYTES: usize = 1 << 20;

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Into the container.
    Put,
    /// Out of the container.
    Get,
}

/// What was copied.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    /// Directories.
    pub(crate) dirs: u64,
    /// Files and special files.
    pub(crate) files: u64,
    /// Symbolic links.
    pub(crate) links: u64,
}

/// Where and why copying stopped.
#[derive(Debug)]
pub(crate) struct Stop {
    /// The path, local or in the container.
    pub(crate) path: Vec<u8>,
    /// The error.
    pub(crate) errno: Errno,
}

type Outcome<T> = Result<T, Stop>;

fn stop(path: &[u8]) -> impl Fn(Errno) -> Stop + '_ {
    move |errno| Stop {
        path: path.to_vec(),
        errno,
    }
}

fn local(path: &Path) -> impl Fn(std::io::Error) -> Stop + '_ {
    move |error| Stop {
        path: path.as_os_str().as_bytes().to_vec(),
        errno: Errno::new(error.raw_os_error().unwrap_or(5)),
    }
}

fn kernel(path: &Path) -> impl Fn(rustix::io::Errno) -> Stop + '_ {
    move |error| Stop {
        path: path.as_os_str().as_bytes().to_vec(),
        errno: Errno::new(error.raw_os_error()),
    }
}

fn nanoseconds(seconds: i64, part: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(part)
}

impl From<&Metadata> for Attributes {
    fn from(data: &Metadata) -> Attributes {
        Attributes {
            mode: data.mode(),
            uid: data.uid(),
            gid: data.gid(),
            atime: nanoseconds(data.atime(), data.atime_nsec()),
            mtime: nanoseconds(data.mtime(), data.mtime_nsec()),
        }
    }
}

/// Joins two parts of a path in the container.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// A name nobody has, for what is to replace something in the same directory.
fn beside() -> String {
    format!(".daos-copy-{}-{:x}", std::process::id(), now_ns())
}

/// Reads at a position; 0 only at the end.
fn read_at(file: &File, buffer: &mut [u8], pos: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(buffer, pos) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A copy into the container under way.
struct Put<'a> {
    view: &'a View,
    counts: Counts,
    /// Copies of files with several names, by device and inode.
    linked: HashMap<(u64, u64), Ino>,
    /// Directories whose attributes are set at the end, when nothing changes them any more.
    dirs: Vec<(Ino, Attributes, Vec<u8>)>,
    bar: Bar,
    buffer: Vec<u8>,
}

/// Copies a local file or tree to a path of the container.
///
/// A path that names a directory, or ends in `/`, receives the copy under its own name.
pub(crate) fn put(view: &View, from: &Path, to: &[u8]) -> Outcome<Counts> {
    let data = from.symlink_metadata().map_err(local(from))?;
    let target = view.walk(to, true).map_err(stop(to))?;
    let into = match target.ino {
        Some(ino) if is_dir(view, ino).map_err(stop(to))? => Some(ino),
        // A directory that is to be is made only of a directory.
        None if target.slash && !data.is_dir() => return Err(stop(to)(Errno::ENOENT)),
        _ => None,
    };
    let (dir, name, path) = match (into, from.canonicalize().ok().as_deref().or(Some(from))) {
        (Some(dir), Some(full)) => {
            // A link keeps its own name, not that of what it points to.
            let named = from
                .file_name()
                .or(full.file_name())
                .unwrap_or(OsStr::new("."));
            (dir, named.as_bytes().to_vec(), join(to, named.as_bytes()))
        }
        _ => (target.parent, target.name, to.to_vec()),
    };
    let mut copy = Put {
        view,
        counts: Counts::default(),
        linked: HashMap::new(),
        dirs: Vec::new(),
        bar: Bar::bytes("Copying"),
        buffer: vec![0; BUFFER_BYTES],
    };
    let done = copy.tree(from, &data, dir, &name, path);
    copy.bar.finish();
    done.map(|()| copy.counts)
}

fn is_dir(view: &View, ino: Ino) -> Result<bool, Errno> {
    Ok(view.stat(ino)?.mode & S_IFMT == S_IFDIR)
}

impl Put<'_> {
    fn tree(
        &mut self,
        from: &Path,
        data: &Metadata,
        dir: Ino,
        name: &[u8],
        path: Vec<u8>,
    ) -> Outcome<()> {
        let done = self.entries(from, data, dir, name, path);
        // Directories get their attributes also where the copy stops.
        for (ino, attributes, path) in self.dirs.drain(..).rev() {
            let set = self.view.set_attributes(ino, &attributes);
            if done.is_ok() {
                set.map_err(stop(&path))?;
            }
        }
        done
    }

    fn entries(
        &mut self,
        from: &Path,
        data: &Metadata,
        dir: Ino,
        name: &[u8],
        path: Vec<u8>,
    ) -> Outcome<()> {
        let mut queue: Vec<(PathBuf, Ino, Vec<u8>)> = Vec::new();
        queue.extend(self.one(from, data, dir, name, path)?);
        while let Some((from, dir, path)) = queue.pop() {
            for entry in std::fs::read_dir(&from).map_err(local(&from))? {
                let entry = entry.map_err(local(&from))?;
                let (below, name) = (entry.path(), entry.file_name());
                let data = below.symlink_metadata().map_err(local(&below))?;
                let to = join(&path, name.as_bytes());
                queue.extend(self.one(&below, &data, dir, name.as_bytes(), to)?);
            }
        }
        Ok(())
    }

    /// Copies one entry; a directory is returned, for its contents to follow.
    fn one(
        &mut self,
        from: &Path,
        data: &Metadata,
        dir: Ino,
        name: &[u8],
        path: Vec<u8>,
    ) -> Outcome<Option<(PathBuf, Ino, Vec<u8>)>> {
        let fail = stop(&path);
        let known = self.view.lookup(dir, name).map_err(&fail)?;
        if data.is_dir() {
            let ino = match known {
                Some(ino) => ino,
                None => self.directory(dir, name).map_err(&fail)?,
            };
            if !is_dir(self.view, ino).map_err(&fail)? {
                return Err(fail(Errno::ENOTDIR));
            }
            self.counts.dirs += 1;
            self.dirs.push((ino, data.into(), path.clone()));
            return Ok(Some((from.to_owned(), ino, path.clone())));
        }
        if let Some(ino) = known
            && is_dir(self.view, ino).map_err(&fail)?
        {
            return Err(fail(Errno::EISDIR));
        }
        let key = (data.dev(), data.ino());
        if let Some(ino) = self.linked.get(&key) {
            place(self.view, dir, name, |name| self.view.link(*ino, dir, name)).map_err(&fail)?;
            self.counts.files += 1;
            return Ok(None);
        }
        let ino = self.make(from, data, dir, name, &path)?;
        if data.nlink() > 1 {
            self.linked.insert(key, ino);
        }
        Ok(None)
    }

    /// Makes a directory, or finds the one another copy has just made.
    fn directory(&self, dir: Ino, name: &[u8]) -> Result<Ino, Errno> {
        match self.view.mkdir(dir, name, 0o700) {
            Err(Errno::EEXIST) => self.view.lookup(dir, name)?.ok_or(Errno::ENOENT),
            made => made,
        }
    }

    fn make(
        &mut self,
        from: &Path,
        data: &Metadata,
        dir: Ino,
        name: &[u8],
        path: &[u8],
    ) -> Outcome<Ino> {
        let fail = stop(path);
        let (view, like) = (self.view, Attributes::from(data));
        let kept = |made: Result<Ino, Errno>| {
            let ino = made?;
            view.set_attributes(ino, &like).map(|()| ino)
        };
        match data.mode() & S_IFMT {
            S_IFREG => {
                // What has taken the place of the file that was seen is not waited for.
                let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
                let source = File::options().read(true).custom_flags(flags).open(from);
                let source = source.map_err(local(from))?;
                let (ino, file) = view.create_unnamed(dir).map_err(&fail)?;
                self.bar.grow(data.len());
                self.file(&source, from, &file, path)?;
                kept(Ok(ino))
                    .and_then(|ino| place(view, dir, name, |name| view.link(ino, dir, name)))
                    .map_err(fail)?;
                self.counts.files += 1;
                Ok(ino)
            }
            S_IFLNK => {
                let target = std::fs::read_link(from).map_err(local(from))?;
                let target = target.as_os_str().as_bytes();
                self.counts.links += 1;
                place(view, dir, name, |name| {
                    kept(view.symlink(target, dir, name))
                })
                .map_err(fail)
            }
            _ => {
                self.counts.files += 1;
                place(view, dir, name, |name| {
                    kept(view.mknod(dir, name, data.mode(), data.rdev()))
                })
                .map_err(fail)
            }
        }
    }

    /// Copies the data runs of a file; holes stay holes.
    fn file(&mut self, source: &File, from: &Path, file: &Open<'_>, path: &[u8]) -> Outcome<()> {
        use rustix::io::Errno as Kernel;
        let fail = stop(path);
        let (mut pos, mut len) = (0, 0);
        loop {
            let (start, end) = match rustix::fs::seek(source, SeekFrom::Data(pos)) {
                Ok(start) => {
                    let end = rustix::fs::seek(source, SeekFrom::Hole(start));
                    (start, end.map_err(kernel(from))?)
                }
                // Only a hole is left, or nothing; except where the size says nothing, as in /proc.
                Err(Kernel::NXIO) => {
                    let len = source.metadata().map_err(local(from))?.len();
                    (len.max(pos), u64::MAX)
                }
                // File systems without holes do not know the question.
                Err(Kernel::INVAL | Kernel::SPIPE | Kernel::OPNOTSUPP) => (pos, u64::MAX),
                Err(error) => return Err(kernel(from)(error)),
            };
            pos = start;
            while pos < end {
                let most = match end {
                    u64::MAX => UNKNOWN_BYTES,
                    _ => BUFFER_BYTES,
                };
                let want = usize::try_from(end - pos).unwrap_or(most).min(most);
                let Some(buffer) = self.buffer.get_mut(..want) else {
                    break;
                };
                let count = read_at(source, buffer, pos).map_err(local(from))?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    // The end, perhaps not where it was when the copy began.
                    return match len == pos {
                        true => Ok(()),
                        false => file.set_len(pos).map_err(fail),
                    };
                };
                file.write_at(bytes, pos).map_err(&fail)?;
                pos += count as u64;
                len = pos;
                self.bar.advance(count as u64);
            }
        }
    }
}

/// Makes something under a name, or in the place of what has it: that stays until `make` is done.
fn place<T>(
    view: &View,
    dir: Ino,
    name: &[u8],
    make: impl Fn(&[u8]) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make(name) {
        Err(Errno::EEXIST) => {}
        made => return made,
    }
    let beside = beside();
    let made = make(beside.as_bytes());
    let moved = made.and_then(|made| view.rename(dir, beside.as_bytes(), name).map(|()| made));
    // There is none after a rename, unless both names were the same file's.
    match view.unlink(dir, beside.as_bytes()) {
        Err(Errno::ENOENT) => moved,
        unlinked => moved.and_then(|made| unlinked.map(|()| made)),
    }
}

/// A copy out of the container under way.
struct Get<'a> {
    view: &'a View,
    counts: Counts,
    linked: HashMap<u64, PathBuf>,
    dirs: Vec<(PathBuf, Attributes)>,
    bar: Bar,
    buffer: Vec<u8>,
}

/// Copies a file or tree of the container to a local path.
///
/// A local path that names a directory receives the copy under its own name; into a device, pipe
/// or socket the bytes of a file are written.
pub(crate) fn get(view: &View, from: &[u8], to: &Path) -> Outcome<Counts> {
    let source = view.walk(from, false).map_err(stop(from))?;
    let ino = source.ino.ok_or(Errno::ENOENT).map_err(stop(from))?;
    let slash = to.as_os_str().as_bytes().last() == Some(&b'/');
    // The whole container has no name, nor has a directory named by dots.
    let named = !matches!(source.name.as_slice(), b"." | b"..");
    let kind = view.stat(ino).map_err(stop(from))?.mode & S_IFMT;
    let regular = kind == S_IFREG;
    let (mut target, mut into) = (to.to_owned(), false);
    match to.metadata() {
        Ok(data) if data.is_dir() && named => target.push(OsStr::from_bytes(&source.name)),
        // Its contents go into the directory, which stays as it is.
        Ok(data) if data.is_dir() => into = true,
        Ok(data) if regular && !data.is_file() => return pour(view, ino, from, to),
        // As cp(1) does: what a link leads to is replaced, not the link.
        Ok(_) if regular => target = to.canonicalize().map_err(local(to))?,
        Err(error) if slash && kind != S_IFDIR => return Err(local(to)(error)),
        _ => {}
    }
    let mut copy = Get {
        view,
        counts: Counts::default(),
        linked: HashMap::new(),
        dirs: Vec::new(),
        bar: Bar::bytes("Copying"),
        buffer: vec![0; BUFFER_BYTES],
    };
    let done = copy.tree(ino, from.to_vec(), target, into);
    copy.bar.finish();
    done.map(|()| copy.counts)
}

/// Writes a file into a device, pipe or socket: these are not replaced.
fn pour(view: &View, ino: Ino, from: &[u8], to: &Path) -> Outcome<Counts> {
    let mut sink = File::options().write(true).open(to).map_err(local(to))?;
    let source = view.open(ino).map_err(stop(from))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut pos = 0;
    loop {
        let count = source.read_at(&mut buffer, pos).map_err(stop(from))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(Counts {
                files: 1,
                ..Counts::default()
            });
        };
        sink.write_all(bytes).map_err(local(to))?;
        pos += count as u64;
    }
}

impl Get<'_> {
    fn tree(&mut self, ino: Ino, from: Vec<u8>, to: PathBuf, into: bool) -> Outcome<()> {
        let done = self.entries(ino, from, to, into);
        // Directories get their attributes also where the copy stops.
        for (path, attributes) in self.dirs.drain(..).rev() {
            let set = set_local(&path, &attributes, self.view.privileged());
            if done.is_ok() {
                set?;
            }
        }
        done
    }

    fn entries(&mut self, ino: Ino, from: Vec<u8>, to: PathBuf, into: bool) -> Outcome<()> {
        let mut queue = Vec::new();
        queue.extend(self.one(ino, from, to)?);
        if into {
            self.dirs.clear();
        }
        while let Some((dir, from, to)) = queue.pop() {
            for entry in self.view.list(dir).map_err(stop(&from))? {
                let below = to.join(OsStr::from_bytes(&entry.name));
                queue.extend(self.one(entry.ino, join(&from, &entry.name), below)?);
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        ino: Ino,
        from: Vec<u8>,
        to: PathBuf,
    ) -> Outcome<Option<(Ino, Vec<u8>, PathBuf)>> {
        let stat = self.view.stat(ino).map_err(stop(&from))?;
        if stat.mode & S_IFMT == S_IFDIR {
            // Nobody else looks into it before it has the mode it is to have. An existing local
            // directory may be reached through a link; anything else is in the way.
            match DirBuilder::new().mode(0o700).create(&to) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !to.is_dir() {
                        return Err(local(&to)(std::io::Error::from_raw_os_error(20)));
                    }
                }
                made => made.map_err(local(&to))?,
            }
            self.counts.dirs += 1;
            self.dirs.push((to.clone(), (&stat).into()));
            return Ok(Some((ino, from, to)));
        }
        if to.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            return Err(local(&to)(std::io::Error::from_raw_os_error(21)));
        }
        // What has the name stays until the copy is complete.
        let beside = to.with_file_name(beside());
        let made = self.make(ino, &stat, &from, &to, &beside);
        let moved = made.and_then(|()| std::fs::rename(&beside, &to).map_err(local(&to)));
        // There is none after a rename, unless both names were the same file's.
        let removed = match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(local(&beside)(error)),
            _ => Ok(()),
        };
        moved.and(removed)?;
        if stat.nlink > 1 {
            self.linked.entry(ino.number).or_insert(to);
        }
        Ok(None)
    }

    /// Makes the copy of a file, link or special file of which nothing has the name.
    fn make(
        &mut self,
        ino: Ino,
        stat: &Stat,
        from: &[u8],
        to: &Path,
        beside: &Path,
    ) -> Outcome<()> {
        if let Some(first) = self.linked.get(&ino.number) {
            self.counts.files += 1;
            return std::fs::hard_link(first, beside).map_err(local(to));
        }
        match stat.mode & S_IFMT {
            S_IFREG => {
                self.bar.grow(stat.size);
                self.file(ino, stat.size, from, to, beside)?;
                self.counts.files += 1;
            }
            S_IFLNK => {
                let target = self.view.readlink(ino).map_err(stop(from))?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), beside)
                    .map_err(local(to))?;
                self.counts.links += 1;
            }
            _ => {
                let kind = FileType::from_raw_mode(stat.mode);
                let mode = Permissions::from_raw_mode(stat.mode & 0o7777);
                rustix::fs::mknodat(CWD, beside, kind, mode, stat.rdev).map_err(kernel(to))?;
                self.counts.files += 1;
            }
        }
        set_local(beside, &stat.into(), self.view.privileged())
    }

    fn file(&mut self, ino: Ino, len: u64, from: &[u8], to: &Path, beside: &Path) -> Outcome<()> {
        let fail = stop(from);
        let source = self.view.open(ino).map_err(&fail)?;
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside)
            .map_err(local(to))?;
        let mut pos = 0;
        while let Some((start, end)) = source.next_data(pos).map_err(&fail)? {
            pos = start;
            while pos < end {
                let want = usize::try_from(end - pos)
                    .unwrap_or(BUFFER_BYTES)
                    .min(BUFFER_BYTES);
                let Some(buffer) = self.buffer.get_mut(..want) else {
                    break;
                };
                let count = source.read_at(buffer, pos).map_err(&fail)?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    // The file was cut while it was read.
                    return file.set_len(pos).map_err(local(to));
                };
                file.write_all_at(bytes, pos).map_err(local(to))?;
                pos += count as u64;
                self.bar.advance(count as u64);
            }
        }
        file.set_len(len.max(pos)).map_err(local(to))
    }
}

fn timespec(ns: i64) -> Timespec {
    Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000),
    }
}

/// Sets owner (for root), permissions and times of a local file, never through a link.
fn set_local(path: &Path, like: &Attributes, owner: bool) -> Outcome<()> {
    if owner && rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(like.uid), Some(like.gid)).map_err(local(path))?;
    }
    if like.mode & S_IFMT != S_IFLNK {
        let mode = Permissions::from_raw_mode(like.mode & 0o7777);
        rustix::fs::chmod(path, mode).map_err(kernel(path))?;
    }
    let times = Timestamps {
        last_access: timespec(like.atime),
        last_modification: timespec(like.mtime),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(kernel(path))
}
