//! The calls of `ops` on a tree in memory, made by the privileged caller: the plainest statement of
//! what names and attributes are.

use super::ops::{Answer, Op, UMASK};
use std::collections::BTreeMap;
use sys::{Errno, Result};

const S_IFMT: u32 = 0o170000;
const S_IFDIR: u32 = 0o040000;
const S_IFREG: u32 = 0o100000;
const S_IFLNK: u32 = 0o120000;

#[derive(Clone, Default)]
struct Node {
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    target: String,
    entries: BTreeMap<String, usize>,
    parent: usize,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// A tree; node 0 is its root.
pub(crate) struct Memory {
    nodes: Vec<Node>,
}

/// Where a path leads: directory, last name, what it names, and whether a slash follows.
struct Spot {
    dir: usize,
    name: String,
    node: Option<usize>,
    slash: bool,
}

impl Spot {
    fn is_dots(&self) -> bool {
        self.name == "." || self.name == ".."
    }
}

impl Memory {
    /// An empty tree whose root has mode 0755.
    pub(crate) fn new() -> Memory {
        Memory {
            nodes: vec![Node {
                mode: S_IFDIR | 0o755,
                nlink: 2,
                ..Node::default()
            }],
        }
    }

    /// Makes a call.
    pub(crate) fn run(&mut self, op: &Op) -> Answer {
        self.call(op).into()
    }

    fn kind(&self, node: usize) -> u32 {
        self.nodes[node].mode & S_IFMT
    }

    fn is_dir(&self, node: usize) -> bool {
        self.kind(node) == S_IFDIR
    }

    fn step(&self, dir: usize, name: &str) -> Result<Option<usize>> {
        if !self.is_dir(dir) {
            return Err(Errno::ENOTDIR);
        }
        match name {
            "." => Ok(Some(dir)),
            ".." => Ok(Some(self.nodes[dir].parent)),
            _ if name.len() > 255 => Err(Errno::ENAMETOOLONG),
            _ => Ok(self.nodes[dir].entries.get(name).copied()),
        }
    }

    fn walk(&self, path: &str, follow: bool) -> Result<Spot> {
        let mut rest = path.to_string();
        let (mut dir, mut links) = (0, 0);
        loop {
            let trimmed = rest.trim_start_matches('/').to_string();
            if trimmed.is_empty() {
                return match self.is_dir(dir) {
                    _ if rest.is_empty() && path.is_empty() => Err(Errno::ENOENT),
                    true => Ok(Spot {
                        dir,
                        name: ".".into(),
                        node: Some(dir),
                        slash: false,
                    }),
                    false => Err(Errno::ENOTDIR),
                };
            }
            let end = trimmed.find('/').unwrap_or(trimmed.len());
            let (name, after) = trimmed.split_at(end);
            let (last, slash) = (after.trim_start_matches('/').is_empty(), !after.is_empty());
            let node = self.step(dir, name)?;
            let link = node.filter(|node| self.kind(*node) == S_IFLNK);
            if let Some(link) = link.filter(|_| !last || follow) {
                links += 1;
                if links > 40 {
                    return Err(Errno::ELOOP);
                }
                rest = format!("{}{after}", self.nodes[link].target);
                if rest.starts_with('/') {
                    dir = 0;
                }
                continue;
            }
            if last {
                return Ok(Spot {
                    dir,
                    name: name.into(),
                    node,
                    slash,
                });
            }
            dir = node.ok_or(Errno::ENOENT)?;
            rest = after.to_string();
        }
    }

    fn find(&self, path: &str, follow: bool) -> Result<usize> {
        let spot = self.walk(path, follow || path.ends_with('/'))?;
        let node = spot.node.ok_or(Errno::ENOENT)?;
        if spot.slash && !self.is_dir(node) {
            Err(Errno::ENOTDIR)
        } else {
            Ok(node)
        }
    }

    fn add(&mut self, path: &str, mode: u32, rdev: u64, target: &str) -> Result<()> {
        let spot = self.walk(path, false)?;
        if spot.is_dots() || spot.node.is_some() {
            return Err(Errno::EEXIST);
        }
        if spot.slash && mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOENT);
        }
        self.put(spot.dir, spot.name, mode, rdev, target);
        Ok(())
    }

    fn put(&mut self, dir: usize, name: String, mode: u32, rdev: u64, target: &str) {
        let inherits = self.nodes[dir].mode & 0o2000 != 0;
        let is_dir = mode & S_IFMT == S_IFDIR;
        let node = Node {
            mode: mode | if inherits && is_dir { 0o2000 } else { 0 },
            nlink: if is_dir { 2 } else { 1 },
            gid: if inherits { self.nodes[dir].gid } else { 0 },
            rdev,
            target: target.into(),
            parent: dir,
            ..Node::default()
        };
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.nodes[dir].entries.insert(name, number);
        self.nodes[dir].nlink += u32::from(is_dir);
    }

    fn call(&mut self, op: &Op) -> Result<Answer> {
        match op {
            Op::Create {
                path,
                mode,
                exclusive,
            } => self.create(path, *mode, *exclusive)?,
            Op::Mkdir { path, mode } => {
                self.add(path, S_IFDIR | mode & 0o1777 & !UMASK, 0, "")?;
            }
            Op::Mknod { path, mode, rdev } => {
                let kind = match mode & S_IFMT {
                    0 => S_IFREG,
                    S_IFDIR => return Err(Errno::EPERM),
                    S_IFLNK => return Err(Errno::EINVAL),
                    kind => kind,
                };
                let rdev = if matches!(kind, 0o020000 | 0o060000) {
                    *rdev
                } else {
                    0
                };
                self.add(path, kind | mode & 0o7777 & !UMASK, rdev, "")?;
            }
            Op::Symlink { target, path } => self.add(path, S_IFLNK | 0o777, 0, target)?,
            Op::Link { from, to } => self.link(from, to)?,
            Op::Unlink { path } => self.unlink(path)?,
            Op::Rmdir { path } => self.rmdir(path)?,
            Op::Rename { from, to, flags } => self.rename(from, to, *flags)?,
            _ => return self.attributes(op),
        }
        Ok(Answer::Done)
    }

    fn create(&mut self, path: &str, mode: u32, exclusive: bool) -> Result<()> {
        let spot = self.walk(path, !exclusive && !path.ends_with('/'))?;
        if spot.is_dots() {
            return Err(if exclusive {
                Errno::EEXIST
            } else {
                Errno::EISDIR
            });
        }
        if spot.slash {
            return Err(Errno::EISDIR);
        }
        match spot.node {
            Some(_) if exclusive => Err(Errno::EEXIST),
            Some(node) if self.is_dir(node) => Err(Errno::EISDIR),
            Some(node) => match self.kind(node) {
                0o020000 if self.nodes[node].rdev == 0x103 => Ok(()),
                0o140000 | 0o020000 | 0o060000 => Err(Errno::ENXIO),
                _ => Ok(()),
            },
            None => {
                self.put(spot.dir, spot.name, S_IFREG | mode & 0o7777 & !UMASK, 0, "");
                Ok(())
            }
        }
    }

    fn link(&mut self, from: &str, to: &str) -> Result<()> {
        let node = self.find(from, false)?;
        let spot = self.walk(to, false)?;
        if spot.is_dots() || spot.node.is_some() {
            return Err(Errno::EEXIST);
        }
        if spot.slash {
            return Err(Errno::ENOENT);
        }
        if self.is_dir(node) {
            return Err(Errno::EPERM);
        }
        self.nodes[node].nlink += 1;
        self.nodes[spot.dir].entries.insert(spot.name, node);
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Result<()> {
        let spot = self.walk(path, false)?;
        if spot.is_dots() {
            return Err(Errno::EISDIR);
        }
        let node = spot.node.ok_or(Errno::ENOENT)?;
        if self.is_dir(node) {
            return Err(Errno::EISDIR);
        }
        if spot.slash {
            return Err(Errno::ENOTDIR);
        }
        self.nodes[spot.dir].entries.remove(&spot.name);
        self.nodes[node].nlink -= 1;
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Result<()> {
        let spot = self.walk(path, false)?;
        match spot.name.as_str() {
            "." => return Err(Errno::EINVAL),
            ".." => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let node = spot.node.ok_or(Errno::ENOENT)?;
        if !self.is_dir(node) {
            return Err(Errno::ENOTDIR);
        }
        if !self.nodes[node].entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.nodes[spot.dir].entries.remove(&spot.name);
        self.nodes[spot.dir].nlink -= 1;
        Ok(())
    }

    fn is_below(&self, mut dir: usize, top: usize) -> bool {
        while dir != top && dir != 0 {
            dir = self.nodes[dir].parent;
        }
        dir == top
    }

    fn rename(&mut self, from: &str, to: &str, flags: u32) -> Result<()> {
        let (keep, swap) = (flags & 1 != 0, flags & 2 != 0);
        if flags & !7 != 0 || swap && flags & 5 != 0 {
            return Err(Errno::EINVAL);
        }
        let (old, new) = (self.walk(from, false)?, self.walk(to, false)?);
        if old.is_dots() {
            return Err(Errno::EBUSY);
        }
        if new.is_dots() {
            return Err(if keep { Errno::EEXIST } else { Errno::EBUSY });
        }
        let source = old.node.ok_or(Errno::ENOENT)?;
        let source_dir = self.is_dir(source);
        match new.node {
            Some(_) if keep => return Err(Errno::EEXIST),
            None if swap => return Err(Errno::ENOENT),
            Some(node) if swap && new.slash && !self.is_dir(node) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        if !source_dir && (old.slash || !swap && new.slash) {
            return Err(Errno::ENOTDIR);
        }
        if source_dir && self.is_below(new.dir, source) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = new.node {
            if self.is_dir(target) && self.is_below(old.dir, target) {
                return Err(if swap {
                    Errno::EINVAL
                } else {
                    Errno::ENOTEMPTY
                });
            }
            if target == source {
                return Ok(());
            }
            if !swap {
                match (source_dir, self.is_dir(target)) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
                if !self.nodes[target].entries.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.nodes[new.dir].nlink -= u32::from(source_dir);
                self.nodes[target].nlink -= 1;
            }
        }
        self.nodes[old.dir].entries.remove(&old.name);
        self.nodes[old.dir].nlink -= u32::from(source_dir);
        self.place(new.dir, &new.name, source);
        match new.node {
            Some(target) if swap => {
                self.nodes[new.dir].nlink -= u32::from(self.is_dir(target));
                self.place(old.dir, &old.name, target);
            }
            _ if flags & 4 != 0 => self.put(old.dir, old.name, 0o020000, 0, ""),
            _ => {}
        }
        Ok(())
    }

    fn place(&mut self, dir: usize, name: &str, node: usize) {
        self.nodes[dir].entries.insert(name.into(), node);
        if self.is_dir(node) {
            self.nodes[dir].nlink += 1;
            self.nodes[node].parent = dir;
        }
    }

    fn attributes(&mut self, op: &Op) -> Result<Answer> {
        match op {
            Op::Chmod { path, mode } => {
                let node = self.find(path, true)?;
                let node = &mut self.nodes[node];
                node.mode = node.mode & S_IFMT | mode & 0o7777;
            }
            Op::Chown {
                path,
                uid,
                gid,
                follow,
            } => {
                let node = self.find(path, *follow)?;
                let node = &mut self.nodes[node];
                node.uid = uid.unwrap_or(node.uid);
                node.gid = gid.unwrap_or(node.gid);
                if node.mode & S_IFMT != S_IFDIR {
                    let group = if node.mode & 0o010 != 0 { 0o2000 } else { 0 };
                    node.mode &= !(0o4000 | group);
                }
            }
            Op::Utimens { path, .. } => drop(self.find(path, true)?),
            Op::Access { path, mask } => {
                let node = self.find(path, true)?;
                let executable = self.is_dir(node) || self.nodes[node].mode & 0o111 != 0;
                if mask & 1 != 0 && !executable {
                    return Err(Errno::EACCES);
                }
            }
            Op::Stat { path, follow } => {
                let node = &self.nodes[self.find(path, *follow)?];
                return Ok(Answer::Stat {
                    mode: node.mode,
                    nlink: node.nlink,
                    uid: node.uid,
                    gid: node.gid,
                    rdev: node.rdev,
                    size: node.target.len() as u64,
                });
            }
            Op::Readlink { path } => {
                let node = self.find(path, false)?;
                if self.kind(node) != S_IFLNK {
                    return Err(Errno::EINVAL);
                }
                return Ok(Answer::Bytes(self.nodes[node].target.clone().into_bytes()));
            }
            Op::List { path } => return self.list(path),
            _ => return self.xattrs(op),
        }
        Ok(Answer::Done)
    }

    fn list(&self, path: &str) -> Result<Answer> {
        let dir = self.find(path, true)?;
        if !self.is_dir(dir) {
            return Err(Errno::ENOTDIR);
        }
        let entries = self.nodes[dir].entries.iter();
        let mut names: Vec<(String, u8)> = entries
            .map(|(name, node)| (name.clone(), (self.kind(*node) >> 12) as u8))
            .chain([".", ".."].map(|name| (name.to_string(), 4)))
            .collect();
        names.sort();
        Ok(Answer::Names(names))
    }

    fn xattrs(&mut self, op: &Op) -> Result<Answer> {
        let (path, name, write) = match op {
            Op::SetXattr { path, name, .. } | Op::RemoveXattr { path, name } => (path, name, true),
            Op::GetXattr { path, name } => (path, name, false),
            _ => unreachable!("handled before"),
        };
        let node = self.find(path, false)?;
        let user = name.starts_with("user.");
        if !user && !name.starts_with("trusted.") {
            return Err(Errno::EOPNOTSUPP);
        }
        if user && !matches!(self.kind(node), S_IFREG | S_IFDIR) {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        if name.ends_with('.') {
            return Err(Errno::EINVAL);
        }
        let xattrs = &mut self.nodes[node].xattrs;
        match op {
            Op::SetXattr { value, flags, .. } => {
                match (xattrs.contains_key(name), flags & 1 != 0, flags & 2 != 0) {
                    (true, true, _) => return Err(Errno::EEXIST),
                    (false, _, true) => return Err(Errno::ENODATA),
                    _ => {}
                }
                xattrs.insert(name.clone(), value.clone());
                Ok(Answer::Done)
            }
            Op::GetXattr { .. } => xattrs
                .get(name)
                .cloned()
                .map(Answer::Bytes)
                .ok_or(Errno::ENODATA),
            _ => xattrs
                .remove(name)
                .map(|_| Answer::Done)
                .ok_or(Errno::ENODATA),
        }
    }
}
