//! Paths: from a directory and a path to an inode, and back (`path_resolution(7)`).

use crate::dir::{self, Found, NAME_MAX};
use crate::inode::{Guard, is_dir, is_symlink, locate, still};
use crate::perm::{self, EXECUTE};
use crate::prefix::{self, Prefix};
use crate::{Cred, DT_LNK, DT_UNKNOWN, Dfs, How, Ino, Place, Walk};
use core::ops::Range;
use engine::Pool;
use sys::{Errno, Result};

/// Longest path, bytes, without the final 0.
const PATH_MAX: usize = 4095;
/// Most symbolic links followed in one walk.
const LINKS_MAX: usize = 40;

/// How often a walk begins anew because a link was gone when it was to be followed.
const AGAIN_MAX: usize = 4096;

/// Where the bytes not yet walked are: in the caller's path, or, once a symbolic link was
/// followed, at the end of the scratch buffer.
#[derive(Clone, Copy)]
enum Rest {
    Path(usize),
    Scratch(usize),
}

struct Walker<'a> {
    dfs: &'a Dfs,
    cred: &'a Cred<'a>,
    start: Ino,
    how: How,
    path: &'a [u8],
    scratch: &'a mut [u8],
    rest: Rest,
    links: usize,
    /// What the last component but the last leads to, to be remembered.
    prefix: Option<Prefix<'a>>,
}

/// The last component of a path, where the walk met it.
enum Last {
    /// Bytes of the path or, once a symbolic link was followed, of the scratch buffer.
    At(Range<usize>),
    /// There is none: the starting directory itself.
    Dot,
}

impl Dfs {
    /// Walks a path. Slashes at its start are skipped: it is relative to `from`. A last component
    /// that does not exist is no error; nor is one that is no directory but followed by `/`, see
    /// [`Place::trailing_slash`]: what that means is the caller's business. In particular a last
    /// symbolic link is followed only if `how.follow` says so: calls that look (stat, chmod, open
    /// without `O_EXCL` ...) set it for a path that ends in `/`, calls that change names do not.
    ///
    /// A path that ends in `..` has that as the name of its place, with the directory before it as
    /// parent.
    ///
    /// `leave` receives what is left of a path that leaves the container and is scratch space for
    /// symbolic links: 4096 bytes or more; a link that does not fit is `ENAMETOOLONG`. Errors:
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, `EXDEV`.
    pub fn walk<'a>(
        &'a self,
        cred: &'a Cred<'_>,
        from: Ino,
        path: &'a [u8],
        how: How,
        leave: &'a mut [u8],
    ) -> Result<Walk<'a>> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() > PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let prefix = Prefix::of(self, cred, from, path);
        let (here, at) = match prefix.as_ref().and_then(|prefix| prefix.find(self.pool)) {
            Some(dir) => (dir, prefix::len(path)),
            None => (from, 0),
        };
        let walker = Walker {
            dfs: self,
            cred,
            start: from,
            how,
            path,
            scratch: leave,
            rest: Rest::Path(at),
            links: 0,
            prefix: prefix.filter(|_| at == 0),
        };
        walker.run(here)
    }

    /// Finds one component in a directory, `.` and `..` included (the root's `..` is the root).
    /// `ENOTDIR`, `EACCES`, `ENAMETOOLONG`, `ENOENT`.
    pub fn lookup(&self, cred: &Cred<'_>, dir: Ino, name: &[u8]) -> Result<Ino> {
        let mut found = Found::default();
        match self.step(cred, dir, name, &mut found)? {
            true => Ok(found.child()),
            false => Err(Errno::ENOENT),
        }
    }

    /// One component: whether it exists, and what was found.
    #[inline]
    fn step(&self, cred: &Cred<'_>, dir: Ino, name: &[u8], found: &mut Found) -> Result<bool> {
        let offset = locate(self.pool, dir).map_err(vanished)?;
        let allowed = may_search(cred, &Guard::read(self.pool, offset)?);
        if allowed.is_err() || name.len() > NAME_MAX || matches!(name, b"." | b"..") {
            still(self.pool, dir, offset).map_err(vanished)?;
            allowed?;
            *found = match name {
                b"." => Found::of_dir(dir),
                b".." => Found::of_dir(self.parent(dir).map_err(vanished)?),
                _ => return Err(Errno::ENAMETOOLONG),
            };
            return Ok(true);
        }
        dir::find_at(self.pool, dir, offset, name, dir::hash(name), found).map_err(vanished)
    }

    /// Path of a directory inside the container, starting with `/`; returns its length. `ENOENT`
    /// if it was removed, `ERANGE` if the buffer is too small.
    pub fn path_of(&self, dir: Ino, buf: &mut [u8]) -> Result<usize> {
        for _ in 0..16 {
            match self.path_once(dir, buf) {
                // Moved while the way up was walked, unless it is really gone.
                Err(Errno::ENOENT | Errno::ESTALE) => {
                    let guard = Guard::of(self.pool, dir).map_err(vanished)?;
                    if guard.nlink == 0 {
                        return Err(Errno::ENOENT);
                    }
                }
                other => return other,
            }
        }
        Err(Errno::ENOENT)
    }

    fn path_once(&self, dir: Ino, buf: &mut [u8]) -> Result<usize> {
        if !is_dir(Guard::of(self.pool, dir)?.mode) {
            return Err(Errno::ENOTDIR);
        }
        let mut start = buf.len();
        let mut here = dir;
        while here != self.root {
            let parent = self.parent(here)?;
            let mut name = [0; NAME_MAX];
            let len = dir::name_of(self.pool, parent, here, &mut name)?;
            start = start.checked_sub(len + 1).ok_or(Errno::ERANGE)?;
            buf[start] = b'/';
            buf[start + 1..start + 1 + len].copy_from_slice(&name[..len]);
            here = parent;
        }
        if start == buf.len() {
            start = start.checked_sub(1).ok_or(Errno::ERANGE)?;
            buf[start] = b'/';
        }
        buf.copy_within(start.., 0);
        Ok(buf.len() - start)
    }
}

/// A directory that is gone is one that does not exist.
fn vanished(errno: Errno) -> Errno {
    if errno == Errno::ESTALE {
        Errno::ENOENT
    } else {
        errno
    }
}

/// `ENOTDIR` or `EACCES` unless names may be looked up in the inode.
#[inline]
fn check_dir(pool: &Pool, cred: &Cred<'_>, dir: Ino) -> Result<()> {
    may_search(cred, &Guard::of(pool, dir).map_err(vanished)?)
}

/// [`check_dir`] for an inode's permissions.
#[inline]
fn may_search(cred: &Cred<'_>, guard: &Guard) -> Result<()> {
    if !is_dir(guard.mode) {
        return Err(Errno::ENOTDIR);
    }
    perm::check(cred, guard, EXECUTE)
}

/// A component of a path: where it is and what follows.
struct Component<'a> {
    name: &'a [u8],
    begin: usize,
    /// Start of the next component, or the end.
    next: usize,
    last: bool,
    slash: bool,
}

/// The component that begins at or after `from`; `None` at the end.
#[inline]
fn component(path: &[u8], from: usize) -> Option<Component<'_>> {
    let begin = from + path.get(from..)?.iter().position(|&byte| byte != b'/')?;
    let tail = &path[begin..];
    let len = tail
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(tail.len());
    let slashes = tail[len..].iter().take_while(|&&byte| byte == b'/').count();
    let next = begin + len + slashes;
    Some(Component {
        name: &tail[..len],
        begin,
        next,
        last: next == path.len(),
        slash: slashes > 0,
    })
}

impl<'a> Walker<'a> {
    fn run(mut self, from: Ino) -> Result<Walk<'a>> {
        let begin = (from, self.rest);
        let mut again = 0;
        let mut here = from;
        let mut found = Found::default();
        // Each turn consumes a component; links add some, at most LINKS_MAX times.
        loop {
            let (bytes, from) = match self.rest {
                Rest::Path(from) => (self.path, from),
                Rest::Scratch(from) => (&*self.scratch, from),
            };
            let Some(part) = component(bytes, from) else {
                check_dir(self.dfs.pool, self.cred, here)?;
                return Ok(self.place(here, Last::Dot, Some(here), false));
            };
            let named = part.begin..part.begin + part.name.len();
            if part.name == b".." {
                // How that is walked depends on where the walk may go.
                self.prefix = None;
                if here == self.dfs.root && !self.confined(here) {
                    check_dir(self.dfs.pool, self.cred, here)?;
                    let next = part.next;
                    return self.leave_up(next);
                }
                if self.confined(here) {
                    check_dir(self.dfs.pool, self.cred, here)?;
                    if self.how.beneath {
                        return Err(Errno::EXDEV);
                    }
                    if part.last {
                        let slash = part.slash;
                        return Ok(self.place(here, Last::At(named), Some(here), slash));
                    }
                    self.rest = self.at(part.next);
                    continue;
                }
            }
            let (last, slash, next) = (part.last, part.slash, part.next);
            let exists = self.dfs.step(self.cred, here, part.name, &mut found)?;
            // Now it is known to be a directory.
            if last && let Some(prefix) = self.prefix.take_if(|_| self.links == 0) {
                prefix.remember(here);
            }
            let target = found.child();
            if !exists {
                return if last {
                    Ok(self.place(here, Last::At(named), None, slash))
                } else {
                    Err(Errno::ENOENT)
                };
            }
            let stays = last && (!self.how.follow || self.how.creates && slash);
            let is_link = match stays {
                true => Ok(false),
                false => self.is_link(&found),
            };
            if is_link == Ok(false) {
                if last {
                    return Ok(self.place(here, Last::At(named), Some(target), slash));
                }
                here = target;
                self.rest = self.at(next);
                continue;
            }
            if is_link == Ok(true) && self.how.no_symlinks {
                return Err(Errno::ELOOP);
            }
            match is_link.and_then(|_| self.follow(target, next, last, slash)) {
                Ok(Some(left)) => return Ok(left),
                Ok(None) => {}
                Err(Errno::ESTALE) if again < AGAIN_MAX => {
                    // Replaced or removed since it was found. Of the path there may be too little
                    // left to find that one name again.
                    again += 1;
                    (here, self.rest) = begin;
                    self.links = 0;
                    continue;
                }
                Err(errno) => return Err(vanished(errno)),
            }
            if self.how.in_root && self.scratch_starts_absolute() {
                here = self.start;
            }
        }
    }

    /// Is what was found a symbolic link?
    #[inline]
    fn is_link(&self, found: &Found) -> Result<bool> {
        match found.entry_type() {
            // Another inode is being put in its place.
            DT_UNKNOWN => Ok(is_symlink(Guard::of(self.dfs.pool, found.child())?.mode)),
            known => Ok(known == DT_LNK),
        }
    }

    /// Where the walk ended.
    fn place(self, parent: Ino, last: Last, target: Option<Ino>, slash: bool) -> Walk<'a> {
        let name = match (last, self.rest) {
            (Last::Dot, _) => b".",
            (Last::At(range), Rest::Path(_)) => &self.path[range],
            (Last::At(range), Rest::Scratch(_)) => {
                let scratch: &'a [u8] = self.scratch;
                &scratch[range]
            }
        };
        Walk::Here(Place {
            parent,
            name,
            target,
            trailing_slash: slash,
        })
    }

    /// Is `here` the directory the walk must not leave?
    fn confined(&self, here: Ino) -> bool {
        (self.how.in_root || self.how.beneath) && here == self.start
    }

    /// The rest from `next` on in the buffer it is in.
    fn at(&self, next: usize) -> Rest {
        match self.rest {
            Rest::Path(_) => Rest::Path(next),
            Rest::Scratch(_) => Rest::Scratch(next),
        }
    }

    /// Puts the target of a link before the rest of the path, at the end of the scratch buffer.
    /// An absolute target leaves the container, unless the walk is confined. `ESTALE` if the link is
    /// gone.
    fn follow(
        &mut self,
        link: Ino,
        next: usize,
        last: bool,
        slash: bool,
    ) -> Result<Option<Walk<'a>>> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::ELOOP);
        }
        let cap = self.scratch.len();
        // What follows the link is kept with the slash before it, if any.
        let start = match self.rest {
            Rest::Path(_) => {
                let tail = &self.path[if last { self.path.len() } else { next }..];
                let start = cap.checked_sub(tail.len()).ok_or(Errno::ENAMETOOLONG)?;
                self.scratch[start..].copy_from_slice(tail);
                start
            }
            Rest::Scratch(_) => next,
        };
        let start = start
            .checked_sub(usize::from(slash))
            .ok_or(Errno::ENAMETOOLONG)?;
        if slash {
            self.scratch[start] = b'/';
        }
        let len = self.dfs.readlink(link, &mut self.scratch[..start])?;
        let size = self.dfs.stat(link)?.size;
        if size != len as u64 {
            return Err(Errno::ENAMETOOLONG);
        }
        self.dfs.touch_atime(link);
        let begin = start - len;
        self.scratch.copy_within(..len, begin);
        if len == 0 {
            return Err(Errno::ENOENT);
        }
        self.rest = Rest::Scratch(begin);
        if !self.scratch_starts_absolute() || self.how.in_root {
            return Ok(None);
        }
        if self.how.beneath {
            return Err(Errno::EXDEV);
        }
        self.scratch.copy_within(begin.., 0);
        Ok(Some(Walk::Leave {
            len: cap - begin,
            absolute: true,
        }))
    }

    /// Does the target just followed begin with `/`?
    fn scratch_starts_absolute(&self) -> bool {
        match self.rest {
            Rest::Scratch(begin) => self.scratch.get(begin) == Some(&b'/'),
            Rest::Path(_) => false,
        }
    }

    /// The walk goes up from the root: hands over what follows.
    fn leave_up(&mut self, next: usize) -> Result<Walk<'a>> {
        let len = match self.rest {
            Rest::Path(_) => {
                let tail = &self.path[next..];
                let room = self
                    .scratch
                    .get_mut(..tail.len())
                    .ok_or(Errno::ENAMETOOLONG)?;
                room.copy_from_slice(tail);
                tail.len()
            }
            Rest::Scratch(_) => {
                self.scratch.copy_within(next.., 0);
                self.scratch.len() - next
            }
        };
        if len > 0 {
            return Ok(Walk::Leave {
                len,
                absolute: false,
            });
        }
        *self.scratch.first_mut().ok_or(Errno::ENAMETOOLONG)? = b'.';
        Ok(Walk::Leave {
            len: 1,
            absolute: false,
        })
    }
}
