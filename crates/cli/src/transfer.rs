//! Copying files and trees between the container and the kernel's file systems: modes, times,
//! owners (for root), symbolic and hard links, holes and special files are kept.

use crate::progress::Bar;
use crate::view::{Attributes, Open, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, View};
use dfs::Ino;
use rustix::fs::{AtFlags, CWD, FileType, Mode as Permissions, SeekFrom, Timespec, Timestamps};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use sys::Errno;

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 4 << 20;

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
pub(crate) fn put(view: &View, from: &Path, to: &str) -> Outcome<Counts> {
    let data = from.symlink_metadata().map_err(local(from))?;
    let target = view
        .walk(to.as_bytes(), true)
        .map_err(stop(to.as_bytes()))?;
    let into = match target.ino {
        Some(ino) if is_dir(view, ino).map_err(stop(to.as_bytes()))? => Some(ino),
        _ if target.slash => return Err(stop(to.as_bytes())(Errno::ENOTDIR)),
        _ => None,
    };
    let (dir, name, path) = match (into, from.canonicalize().ok().as_deref().or(Some(from))) {
        (Some(dir), Some(full)) => {
            // A link keeps its own name, not that of what it points to.
            let named = from
                .file_name()
                .or(full.file_name())
                .unwrap_or(OsStr::new("."));
            (
                dir,
                named.as_bytes().to_vec(),
                join(to.as_bytes(), named.as_bytes()),
            )
        }
        _ => (target.parent, target.name, to.as_bytes().to_vec()),
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
        for (ino, attributes, path) in self.dirs.drain(..).rev() {
            self.view
                .set_attributes(ino, &attributes)
                .map_err(stop(&path))?;
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
                Some(ino) if is_dir(self.view, ino).map_err(&fail)? => ino,
                Some(_) => return Err(fail(Errno::ENOTDIR)),
                None => self.view.mkdir(dir, name, 0o700).map_err(&fail)?,
            };
            self.counts.dirs += 1;
            self.dirs.push((ino, data.into(), path.clone()));
            return Ok(Some((from.to_owned(), ino, path.clone())));
        }
        if let Some(ino) = known {
            if is_dir(self.view, ino).map_err(&fail)? {
                return Err(fail(Errno::EISDIR));
            }
            self.view.unlink(dir, name).map_err(&fail)?;
        }
        let key = (data.dev(), data.ino());
        if let Some(ino) = self.linked.get(&key) {
            self.view.link(*ino, dir, name).map_err(&fail)?;
            self.counts.files += 1;
            return Ok(None);
        }
        let ino = self.make(from, data, dir, name, &path)?;
        self.view.set_attributes(ino, &data.into()).map_err(&fail)?;
        if data.nlink() > 1 {
            self.linked.insert(key, ino);
        }
        Ok(None)
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
        match data.mode() & S_IFMT {
            S_IFREG => {
                let source = File::open(from).map_err(local(from))?;
                let (ino, file) = self.view.create(dir, name).map_err(&fail)?;
                self.bar.grow(data.len());
                let copied = self.file(&source, from, data.len(), &file, path);
                drop(file);
                if copied.is_err() {
                    // Half a file is worse than none.
                    self.view.unlink(dir, name).map_err(&fail)?;
                }
                copied?;
                self.counts.files += 1;
                Ok(ino)
            }
            S_IFLNK => {
                let target = std::fs::read_link(from).map_err(local(from))?;
                self.counts.links += 1;
                self.view
                    .symlink(target.as_os_str().as_bytes(), dir, name)
                    .map_err(fail)
            }
            _ => {
                self.counts.files += 1;
                self.view
                    .mknod(dir, name, data.mode(), data.rdev())
                    .map_err(fail)
            }
        }
    }

    /// Copies the data runs of a file; holes stay holes.
    fn file(
        &mut self,
        source: &File,
        from: &Path,
        len: u64,
        file: &Open<'_>,
        path: &[u8],
    ) -> Outcome<()> {
        let fail = stop(path);
        let mut pos = 0;
        while pos < len {
            let (start, end) = match rustix::fs::seek(source, SeekFrom::Data(pos)) {
                Ok(start) => {
                    let end = rustix::fs::seek(source, SeekFrom::Hole(start));
                    (start, end.map_err(kernel(from))?)
                }
                Err(rustix::io::Errno::NXIO) => break,
                // File systems without holes do not know the question.
                Err(rustix::io::Errno::INVAL) => (pos, len),
                Err(error) => return Err(kernel(from)(error)),
            };
            pos = start;
            while pos < end {
                let want = usize::try_from(end - pos)
                    .unwrap_or(BUFFER_BYTES)
                    .min(BUFFER_BYTES);
                let Some(buffer) = self.buffer.get_mut(..want) else {
                    break;
                };
                let count = source.read_at(buffer, pos).map_err(local(from))?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    // The source was cut while it was read.
                    return file.set_len(pos).map_err(fail);
                };
                file.write_at(bytes, pos).map_err(&fail)?;
                pos += count as u64;
                self.bar.advance(count as u64);
            }
        }
        file.set_len(len).map_err(fail)
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
/// A local path that names a directory receives the copy under its own name.
pub(crate) fn get(view: &View, from: &str, to: &Path) -> Outcome<Counts> {
    let source = view
        .walk(from.as_bytes(), false)
        .map_err(stop(from.as_bytes()))?;
    let ino = source
        .ino
        .ok_or(Errno::ENOENT)
        .map_err(stop(from.as_bytes()))?;
    let slash = to.as_os_str().as_bytes().last() == Some(&b'/');
    let target = match to.metadata() {
        // The whole container has no name: its contents go into the directory.
        Ok(data) if data.is_dir() && source.name != b"." => {
            to.join(OsStr::from_bytes(&source.name))
        }
        Err(_) if slash => return Err(local(to)(std::io::Error::from_raw_os_error(20))),
        _ => to.to_owned(),
    };
    let mut copy = Get {
        view,
        counts: Counts::default(),
        linked: HashMap::new(),
        dirs: Vec::new(),
        bar: Bar::bytes("Copying"),
        buffer: vec![0; BUFFER_BYTES],
    };
    let done = copy.tree(ino, from.as_bytes().to_vec(), target);
    copy.bar.finish();
    done.map(|()| copy.counts)
}

impl Get<'_> {
    fn tree(&mut self, ino: Ino, from: Vec<u8>, to: PathBuf) -> Outcome<()> {
        let mut queue = Vec::new();
        queue.extend(self.one(ino, from, to)?);
        while let Some((dir, from, to)) = queue.pop() {
            for entry in self.view.list(dir).map_err(stop(&from))? {
                let below = to.join(OsStr::from_bytes(&entry.name));
                queue.extend(self.one(entry.ino, join(&from, &entry.name), below)?);
            }
        }
        for (path, attributes) in self.dirs.drain(..).rev() {
            set_local(&path, &attributes, self.view.privileged())?;
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
        let known = to.symlink_metadata().ok();
        if stat.mode & S_IFMT == S_IFDIR {
            // An existing local directory may be reached through a link; anything else is in the way.
            if known.is_none() {
                std::fs::create_dir(&to).map_err(local(&to))?;
            } else if !to.is_dir() {
                return Err(local(&to)(std::io::Error::from_raw_os_error(20)));
            }
            self.counts.dirs += 1;
            self.dirs.push((to.clone(), (&stat).into()));
            return Ok(Some((ino, from, to)));
        }
        if let Some(data) = known {
            if data.is_dir() {
                return Err(local(&to)(std::io::Error::from_raw_os_error(21)));
            }
            std::fs::remove_file(&to).map_err(local(&to))?;
        }
        if let Some(first) = self.linked.get(&ino.number) {
            std::fs::hard_link(first, &to).map_err(local(&to))?;
            self.counts.files += 1;
            return Ok(None);
        }
        match stat.mode & S_IFMT {
            S_IFREG => {
                self.bar.grow(stat.size);
                let copied = self.file(ino, stat.size, &from, &to);
                if copied.is_err() {
                    // Half a file is worse than none.
                    std::fs::remove_file(&to).map_err(local(&to))?;
                }
                copied?;
                self.counts.files += 1;
            }
            S_IFLNK => {
                let target = self.view.readlink(ino).map_err(stop(&from))?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), &to).map_err(local(&to))?;
                self.counts.links += 1;
            }
            _ => {
                let kind = FileType::from_raw_mode(stat.mode);
                let mode = Permissions::from_raw_mode(stat.mode & 0o7777);
                rustix::fs::mknodat(CWD, &to, kind, mode, stat.rdev).map_err(kernel(&to))?;
                self.counts.files += 1;
            }
        }
        set_local(&to, &(&stat).into(), self.view.privileged())?;
        if stat.nlink > 1 {
            self.linked.insert(ino.number, to);
        }
        Ok(None)
    }

    fn file(&mut self, ino: Ino, len: u64, from: &[u8], to: &Path) -> Outcome<()> {
        let fail = stop(from);
        let file = File::create_new(to).map_err(local(to))?;
        let source = self.view.open(ino).map_err(&fail)?;
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
