//! Whose path is it? From (directory descriptor, path of the program) to a place in the mount.
//!
//! Order: the mount path is compared component by component with the path as written; only what
//! could be ours is looked at further. The rest of a path inside the mount goes *unnormalised* to
//! the walker of `dfs`, so `..` after a symbolic link is physical. A walk that leaves the mount
//! (`..` above its root, absolute symbolic link) re-enters here with the path it left with. Kernel
//! symbolic links that point into the mount are found after the kernel failed (`look_again`), or
//! before it acts where it has something of its own at the mount point (`shadow`).

use crate::abi::{self, PATH_MAX, nr};
use crate::dispatch::{self, Served, Stop};
use crate::kernel::{self, addr};
use crate::links::{below, follow_kernel_links, has_link, where_kernel_arrives};
use crate::magic::{Magic, magic_name};
use crate::user::NameRoom;
use crate::{above, cwd, files, mounts, shadow, user};
use core::cell::Cell;
use dfs::{Dfs, How, Ino, Walk};
use intercept::Call;
use std::vec::Vec;
use sys::Errno;

/// Mark on a call number: the kernel has failed, look for symbolic links into the mount.
const LOOK: usize = 1 << 20;
/// Mark on a call number: the kernel has found what the mount hides.
const HIDDEN: usize = 1 << 21;
/// Symbolic links followed in one path (`path_resolution(7)`).
pub(crate) const LINKS_MAX: usize = 40;
/// Walks repeated because another process changed a name in between.
const RACES_MAX: usize = 20;

/// The place in the mount that a path names.
pub(crate) struct Spot<'n> {
    pub(crate) fs: &'static Dfs,
    /// Directory of the last component.
    pub(crate) parent: Ino,
    /// Last component; `.` for the mount root.
    pub(crate) name: &'n [u8],
    /// What it names.
    pub(crate) target: Option<Ino>,
    /// The path ended in `/`.
    pub(crate) trailing_slash: bool,
    /// Reached through a descriptor (`/proc/self/fd/N`): `parent` and `name` mean nothing.
    pub(crate) anonymous: bool,
}

impl Spot<'_> {
    /// The file named, or `ENOENT`.
    pub(crate) fn found(&self) -> sys::Result<Ino> {
        self.target.ok_or(Errno::ENOENT)
    }
}

/// Outcome of a resolution.
pub(crate) enum Resolved<'n> {
    /// Inside the mount.
    Ours(Spot<'n>),
    /// The kernel's, as written.
    Kernel,
    /// The kernel's, but under this NUL-terminated absolute path.
    KernelPath(Vec<u8>),
    /// A directory above the mount point, of so many components, that the kernel does not have.
    Ancestor(usize),
    /// The path cannot be read or is too long.
    Bad(Errno),
}

/// Position of a path among a call's arguments.
#[derive(Clone, Copy)]
pub(crate) struct Arg {
    /// Index of the directory descriptor, if the call has one.
    pub(crate) dir: Option<usize>,
    /// Index of the path.
    pub(crate) path: usize,
}

impl Arg {
    /// A path relative to the working directory.
    pub(crate) const fn path(path: usize) -> Arg {
        Arg { dir: None, path }
    }

    /// A path relative to a directory descriptor.
    pub(crate) const fn at(dir: usize, path: usize) -> Arg {
        Arg {
            dir: Some(dir),
            path,
        }
    }

    /// The directory descriptor given, `AT_FDCWD` if the call has none.
    pub(crate) fn dirfd(self, c: &Call) -> i32 {
        self.dir.map_or(abi::AT_FDCWD, |i| c.args[i & 7] as i32)
    }

    /// Address of the path.
    pub(crate) fn address(self, c: &Call) -> usize {
        c.args[self.path & 7]
    }
}

/// [`How`] of a call that follows a final symbolic link or not.
pub(crate) const fn follow(yes: bool) -> How {
    How {
        follow: yes,
        creates: false,
        no_symlinks: false,
        beneath: false,
        in_root: false,
    }
}

/// Resolves one path of a call and serves it if it is ours; else the kernel gets the call.
pub(crate) fn at(c: &Call, arg: Arg, how: How, serve: &mut dyn FnMut(&Spot) -> Served) -> Served {
    let mut room = NameRoom::new();
    match resolve(c, arg, how, &mut room)? {
        Resolved::Ours(spot) => {
            let served = serve(&spot);
            if overtaken(&spot, served) {
                return again(c, arg, how, serve, served);
            }
            served
        }
        Resolved::Kernel => Err(Stop::PassThenLook),
        Resolved::Ancestor(depth) => above::serve(c, arg, depth),
        // The kernel's to refuse, in its own order of checks.
        Resolved::Bad(_) => Err(Stop::Pass),
        Resolved::KernelPath(path) => {
            let mut args = c.args;
            redirect(&mut args, arg, &path);
            Err(Stop::Kernel(kernel::raw(number(c), args)))
        }
    }
}

/// Walks again what was overtaken.
#[cold]
fn again(
    c: &Call,
    arg: Arg,
    how: How,
    serve: &mut dyn FnMut(&Spot) -> Served,
    mut served: Served,
) -> Served {
    for _ in 0..RACES_MAX {
        let mut room = NameRoom::new();
        let Resolved::Ours(spot) = resolve(c, arg, how, &mut room)? else {
            break;
        };
        served = serve(&spot);
        if !overtaken(&spot, served) {
            break;
        }
    }
    served
}

/// [`at`] for calls that only look a file up: a trailing slash follows a final symbolic link, and
/// what it then names must be a directory (`path_resolution(7)`).
pub(crate) fn lookup(
    c: &Call,
    arg: Arg,
    follows: bool,
    serve: &mut dyn FnMut(&Spot) -> Served,
) -> Served {
    let link = Cell::new(false);
    let mut serve = |spot: &Spot| match spot.target {
        Some(ino) if spot.trailing_slash => match spot.fs.stat(ino)?.mode & abi::S_IFMT {
            abi::S_IFDIR => serve(spot),
            kind => {
                link.set(kind == abi::S_IFLNK);
                Err(Errno::ENOTDIR.into())
            }
        },
        _ => serve(spot),
    };
    let served = at(c, arg, follow(follows), &mut serve);
    if link.get() {
        at(c, arg, follow(true), &mut serve)
    } else {
        served
    }
}

/// The file vanished between the walk and the operation: another process replaced or removed the
/// name, so the walk is repeated, as the kernel does.
fn overtaken(spot: &Spot, served: Served) -> bool {
    spot.target.is_some()
        && !spot.anonymous
        && matches!(served, Err(Stop::Fail(Errno::ESTALE | Errno::ENOENT)))
}

/// Resolves both paths of a call; `EXDEV` when only one is ours. `check` judges the first place
/// before the second path is looked at.
pub(crate) fn pair(
    c: &Call,
    one: (Arg, How),
    two: (Arg, How),
    check: &dyn Fn(&Spot) -> sys::Result<()>,
    serve: &mut dyn FnMut(&Spot, &Spot) -> Served,
) -> Served {
    pair_again(c, one, two, check, serve, &Cell::new(0))
}

fn pair_again(
    c: &Call,
    one: (Arg, How),
    two: (Arg, How),
    check: &dyn Fn(&Spot) -> sys::Result<()>,
    serve: &mut dyn FnMut(&Spot, &Spot) -> Served,
    again: &Cell<usize>,
) -> Served {
    let mut rooms = [const { NameRoom::new() }; 2];
    let [first_room, second_room] = &mut rooms;
    let first = resolve(c, one.0, one.1, first_room)?;
    if let Resolved::Ours(spot) = &first {
        check(spot)?;
    }
    let second = resolve(c, two.0, two.1, second_room)?;
    let mut args = c.args;
    match (&first, &second) {
        (Resolved::Ours(a), Resolved::Ours(b)) => {
            let served = serve(a, b);
            let tried = again.get();
            if (overtaken(a, served) || overtaken(b, served)) && tried < RACES_MAX {
                again.set(tried + 1);
                return pair_again(c, one, two, check, serve, again);
            }
            return served;
        }
        (Resolved::Kernel, Resolved::Kernel) => return Err(Stop::PassThenLook),
        (Resolved::Ours(_), Resolved::Bad(errno)) | (Resolved::Bad(errno), Resolved::Ours(_)) => {
            return Err((*errno).into());
        }
        (Resolved::Bad(_), _) | (_, Resolved::Bad(_)) => return Err(Stop::Pass),
        (Resolved::Ours(_), _) | (_, Resolved::Ours(_)) => return Err(Errno::EXDEV.into()),
        (Resolved::Ancestor(_), _) | (_, Resolved::Ancestor(_)) => return Err(Errno::EROFS.into()),
        _ => {}
    }
    if let Resolved::KernelPath(path) = &first {
        redirect(&mut args, one.0, path);
    }
    if let Resolved::KernelPath(path) = &second {
        redirect(&mut args, two.0, path);
    }
    Err(Stop::Kernel(kernel::raw(number(c), args)))
}

/// The call's number without our marks.
pub(crate) fn number(c: &Call) -> usize {
    c.nr & !(LOOK | HIDDEN)
}

/// The call's number with our mark.
pub(crate) fn look(c: &Call) -> usize {
    c.nr | LOOK
}

/// Puts an absolute path in the place of one of the call's.
pub(crate) fn redirect(args: &mut [usize; 6], arg: Arg, path: &[u8]) {
    args[arg.path & 7] = addr(path);
    if let Some(dir) = arg.dir {
        args[dir & 7] = kernel::abi_cwd();
    }
}

/// Second half of a path call: after the kernel found nothing, or what the mount hides, a symbolic
/// link may still lead into the mount.
pub(crate) fn look_again(c: &Call, result: isize) -> isize {
    if number(c) != c.nr {
        return result;
    }
    let mut again = *c;
    if Errno::ENOENT.as_ret() == result || Errno::ENOTDIR.as_ret() == result {
        again.nr |= LOOK;
    } else if result >= 0 && shadow::was_reached(c, result) {
        again.nr |= HIDDEN;
    } else {
        return result;
    }
    match dispatch::handler(number(c)).map(|handler| handler(&mut again)) {
        Some(Ok(value)) => value as isize,
        Some(Err(Stop::Fail(errno))) => errno.as_ret(),
        Some(Err(Stop::Kernel(ret))) => ret,
        _ => result,
    }
}

/// When a path that looks foreign is searched for symbolic links into the mount.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Not yet: the kernel is asked first.
    Later,
    /// Now: the kernel has found nothing there.
    Refused,
    /// Before the kernel acts: it has something of its own at the mount point, where it would find
    /// or make files, or the path has been in the mount already, so no second half follows.
    First,
}

impl Look {
    fn of(c: &Call) -> Look {
        if c.nr & HIDDEN != 0 || shadow::must_look(c) {
            Look::First
        } else if c.nr & LOOK != 0 {
            Look::Refused
        } else {
            Look::Later
        }
    }
}

/// What is known of a path before the container is asked.
enum Where<'a> {
    /// Starts at `base` inside the mount; `None` is the mount's root.
    Inside {
        base: Option<Ino>,
        rest: &'a [u8],
    },
    /// `/proc/self/fd/N` and the like, naming this inode, and what follows.
    Magic {
        base: Ino,
        rest: &'a [u8],
    },
    Kernel,
    /// The kernel's, but under this NUL-terminated path.
    Elsewhere(Vec<u8>),
    Ancestor(usize),
}

/// Resolves a path of the program; `room` keeps its last component.
pub(crate) fn resolve<'n>(
    c: &Call,
    arg: Arg,
    how: How,
    room: &'n mut NameRoom,
) -> Result<Resolved<'n>, Stop> {
    let mut buffer = user::path_buffer();
    let mut joined = Vec::new();
    let look = Look::of(c);
    let mount = mounts::path().ok_or(Stop::Pass)?;
    let path = match user::path(arg.address(c), &mut buffer) {
        Ok(path) => path,
        Err(errno) if is_ours_dir(arg.dirfd(c)) => return Err(errno.into()),
        Err(errno) => return Ok(Resolved::Bad(errno)),
    };
    let confined = how.in_root || how.beneath;
    let place = match confined_base(confined, arg.dirfd(c))? {
        // RESOLVE_IN_ROOT, RESOLVE_BENEATH: an absolute path starts at the directory, too.
        Some(_) if how.beneath && path.first() == Some(&b'/') => return Err(Errno::EXDEV.into()),
        Some(base) if path.first() == Some(&b'/') => relative(base, path)?,
        _ => locate(mount, arg.dirfd(c), path, look, how.follow, &mut joined)?,
    };
    let (base, rest, magic) = match place {
        Where::Kernel => return Ok(Resolved::Kernel),
        Where::Elsewhere(path) => return Ok(Resolved::KernelPath(path)),
        Where::Ancestor(depth) => return Ok(Resolved::Ancestor(depth)),
        Where::Inside { base, rest } => (base, rest, false),
        Where::Magic { base, rest } => (Some(base), rest, true),
    };
    let fs = mounts::fs()?;
    if magic && rest.iter().all(|&b| b == b'/') {
        let Some(ino) = base else {
            return Ok(Resolved::Kernel);
        };
        if !how.follow && rest.is_empty() {
            return Ok(Resolved::Kernel);
        }
        let trailing_slash = !rest.is_empty();
        return Ok(Resolved::Ours(Spot {
            fs,
            parent: ino,
            name: b".",
            target: Some(ino),
            trailing_slash,
            anonymous: true,
        }));
    }
    match walk(fs, base.unwrap_or(fs.root()), rest, how, room)? {
        Step::Here(end) => Ok(end.resolved(fs, room)),
        Step::Left(path) => re_enter(fs, mount, path, how, room),
    }
}

fn confined_base(confined: bool, dirfd: i32) -> Result<Option<Ino>, Stop> {
    if !confined {
        return Ok(None);
    }
    if dirfd == abi::AT_FDCWD {
        return Ok(cwd::base());
    }
    Ok(match files::get(dirfd)? {
        Some(held) => Some(held.info()?.ino),
        None => None,
    })
}

/// Goes on with an absolute path by which a walk left the mount.
#[cold]
fn re_enter<'n>(
    fs: &'static Dfs,
    mount: &[u8],
    mut path: Vec<u8>,
    how: How,
    room: &'n mut NameRoom,
) -> Result<Resolved<'n>, Stop> {
    for _ in 0..LINKS_MAX {
        let mut joined = Vec::new();
        let left = match locate_absolute(mount, &path, Look::First, how.follow, &mut joined)? {
            Where::Inside { base, rest } => {
                match walk(fs, base.unwrap_or(fs.root()), rest, how, room)? {
                    Step::Here(end) => return Ok(end.resolved(fs, room)),
                    Step::Left(left) => left,
                }
            }
            Where::Magic { .. } | Where::Kernel | Where::Elsewhere(_) | Where::Ancestor(_) => {
                let hit = compare(mount, &path);
                path.push(0);
                return Ok(match hit {
                    Hit::Ancestor(depth) if !kernel::finds(&path) => Resolved::Ancestor(depth),
                    _ => Resolved::KernelPath(path),
                });
            }
        };
        path = left;
    }
    Err(Errno::ELOOP.into())
}

enum Step {
    Here(End),
    Left(Vec<u8>),
}

/// Where a walk ended; the last component is in the room for it.
struct End {
    parent: Ino,
    target: Option<Ino>,
    trailing_slash: bool,
}

impl End {
    fn resolved<'n>(self, fs: &'static Dfs, room: &'n NameRoom) -> Resolved<'n> {
        Resolved::Ours(Spot {
            fs,
            parent: self.parent,
            name: room.name(),
            target: self.target,
            trailing_slash: self.trailing_slash,
            anonymous: false,
        })
    }
}

/// Walks inside the container; a path that leaves comes back absolute.
fn walk(
    fs: &'static Dfs,
    from: Ino,
    path: &[u8],
    how: How,
    room: &mut NameRoom,
) -> Result<Step, Stop> {
    let cred = crate::cred::current();
    let path = if path.is_empty() { b"." } else { path };
    // Hardly any path leaves the mount, so the buffer for one that does is made only then.
    let first = fs.walk(&cred, from, path, how, &mut []);
    let mut leave = Vec::new();
    let walked = match first {
        Err(Errno::ENAMETOOLONG | Errno::ERANGE) => {
            leave.resize(PATH_MAX, 0);
            fs.walk(&cred, from, path, how, &mut leave)
        }
        other => other,
    };
    match walked? {
        Walk::Here(place) => {
            room.keep(place.name)?;
            Ok(Step::Here(End {
                parent: place.parent,
                target: place.target,
                trailing_slash: place.trailing_slash,
            }))
        }
        Walk::Leave { len, absolute } => {
            leave.truncate(len);
            if absolute {
                return Ok(Step::Left(leave));
            }
            let mut path = mounts::parent().to_vec();
            path.push(b'/');
            path.extend_from_slice(&leave);
            Ok(Step::Left(path))
        }
    }
}

fn is_ours_dir(dirfd: i32) -> bool {
    if dirfd == abi::AT_FDCWD {
        cwd::base().is_some()
    } else {
        files::is_ours(dirfd)
    }
}

/// Compares a path with the mount path.
fn locate<'a>(
    mount: &[u8],
    dirfd: i32,
    path: &'a [u8],
    look: Look,
    follow: bool,
    joined: &'a mut Vec<u8>,
) -> Result<Where<'a>, Stop> {
    if path.first() == Some(&b'/') {
        return locate_absolute(mount, path, look, follow, joined);
    }
    if dirfd == abi::AT_FDCWD {
        if let Some(base) = cwd::base() {
            return relative(base, path);
        }
    } else if let Some(held) = files::get(dirfd)? {
        return relative(held.info()?.ino, path);
    }
    let first = path
        .split(|&b| b == b'/')
        .find(|part| !part.is_empty() && *part != b".");
    let first = first.unwrap_or(b".");
    let concerns = first == b".." || mount.split(|&b| b == b'/').any(|part| part == first);
    // An empty path is the descriptor itself.
    let looks = (look != Look::Later || above::in_use()) && !path.is_empty();
    if !concerns && !looks {
        return Ok(Where::Kernel);
    }
    // Where the path does not go up and no link is met, the directory it starts from is all there is.
    let plain = look == Look::Refused && !concerns && !above::in_use();
    if plain && !path.split(|&b| b == b'/').any(|p| p == b"..") && !has_link(dirfd, path) {
        return Ok(Where::Kernel);
    }
    let mut dir = [0u8; PATH_MAX];
    let link = if dirfd == abi::AT_FDCWD {
        kernel::readlink(c"/proc/self/cwd", &mut dir)
    } else {
        kernel::readlink(kernel::text!(40, "/proc/self/fd/{dirfd}").c_str(), &mut dir)
    };
    let Ok(dir) = link else {
        return Ok(Where::Kernel);
    };
    if dir.first() != Some(&b'/') {
        return Ok(Where::Kernel);
    }
    let from_tree = above::shown(dir);
    // What the kernel has in the tree says nothing.
    let look = from_tree.map_or(look, |_| Look::Refused);
    let mut whole = from_tree.unwrap_or(dir).to_vec();
    whole.push(b'/');
    whole.extend_from_slice(path);
    match locate_absolute(mount, &whole, look, follow, joined)? {
        Where::Inside { base, rest } => {
            let rest = rest.to_vec();
            *joined = rest;
            Ok(Where::Inside { base, rest: joined })
        }
        Where::Ancestor(depth) => Ok(Where::Ancestor(depth)),
        Where::Magic { .. } | Where::Kernel | Where::Elsewhere(_) => match from_tree {
            Some(dir) if !path.is_empty() => Ok(Where::Elsewhere(above::outside(dir, path)?)),
            _ => Ok(Where::Kernel),
        },
    }
}

fn relative(base: Ino, path: &[u8]) -> Result<Where<'_>, Stop> {
    if path.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    Ok(Where::Inside {
        base: Some(base),
        rest: path,
    })
}

fn locate_absolute<'a>(
    mount: &[u8],
    path: &'a [u8],
    look: Look,
    follow: bool,
    joined: &'a mut Vec<u8>,
) -> Result<Where<'a>, Stop> {
    // The mount path as it is: no need to look closer.
    if let Some(rest) = path.strip_prefix(mount)
        && rest.first().is_none_or(|&b| b == b'/')
    {
        return Ok(Where::Inside { base: None, rest });
    }
    if let Some(place) = magic(path)? {
        return Ok(place);
    }
    let hit = compare(mount, path);
    match hit {
        Hit::Inside(at) => {
            return Ok(Where::Inside {
                base: None,
                rest: path.get(at..).unwrap_or(&[]),
            });
        }
        Hit::Through => {}
        Hit::No | Hit::Ancestor(_) if look == Look::Later => return Ok(Where::Kernel),
        Hit::No | Hit::Ancestor(_) => {}
    }
    let arrived = match look {
        Look::First => where_kernel_arrives(path, follow),
        Look::Later | Look::Refused => None,
    };
    let found = match arrived {
        Some(there) => below(mount, &there).map(<[u8]>::to_vec),
        None if hit == Hit::Through || has_link(abi::AT_FDCWD, path) => {
            follow_kernel_links(mount, path, follow)
        }
        None => None,
    };
    match (found, hit) {
        (Some(rest), _) => {
            *joined = rest;
            Ok(Where::Inside {
                base: None,
                rest: joined,
            })
        }
        (None, Hit::Ancestor(depth)) if look == Look::Refused => Ok(Where::Ancestor(depth)),
        (None, _) => Ok(Where::Kernel),
    }
}

/// How a path relates to the mount path, as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hit {
    /// The mount path is a prefix; the rest starts at this offset.
    Inside(usize),
    /// Reaches the mount after a `..`, so symbolic links before it matter.
    Through,
    /// Names a directory above the mount point, of so many components.
    Ancestor(usize),
    No,
}

pub(crate) fn compare(mount: &[u8], path: &[u8]) -> Hit {
    let mut wanted = mount.get(1..).unwrap_or(&[]);
    let mut depth = 0usize;
    let mut matched = 0usize;
    let mut dotdot = false;
    let mut at = 0;
    while at < path.len() {
        let rest = path.get(at..).unwrap_or(&[]);
        let len = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let part = rest.get(..len).unwrap_or(&[]);
        at += len.max(1);
        match part {
            b"" | b"." => continue,
            b".." => {
                dotdot = true;
                depth = depth.saturating_sub(1);
                if matched > depth {
                    matched = depth;
                    wanted = after_components(mount, matched);
                }
                continue;
            }
            _ => {}
        }
        if depth == matched
            && let Some(left) = wanted.strip_prefix(part)
            && (left.is_empty() || left.first() == Some(&b'/'))
        {
            matched += 1;
            wanted = left.get(1..).unwrap_or(&[]);
            if left.is_empty() {
                return if dotdot {
                    Hit::Through
                } else {
                    Hit::Inside(at)
                };
            }
        } else if depth == 0 && !dotdot && !has_dotdot(rest) {
            return Hit::No;
        }
        depth += 1;
    }
    if depth == matched {
        Hit::Ancestor(matched)
    } else {
        Hit::No
    }
}

fn has_dotdot(path: &[u8]) -> bool {
    path.windows(2).any(|w| w == b"..")
}

/// The mount path without its first `n` components and slashes before them.
fn after_components(mount: &[u8], n: usize) -> &[u8] {
    let mut rest = mount.get(1..).unwrap_or(&[]);
    for _ in 0..n {
        let at = rest
            .iter()
            .position(|&b| b == b'/')
            .map_or(rest.len(), |i| i + 1);
        rest = rest.get(at..).unwrap_or(&[]);
    }
    rest
}

/// Paths in `/proc/self` and `/dev` that name a descriptor or the working directory.
fn magic(path: &[u8]) -> Result<Option<Where<'_>>, Stop> {
    let Some((what, rest)) = magic_name(path) else {
        return Ok(None);
    };
    match what {
        Magic::Fd(fd) => {
            let Some(held) = files::get(fd)? else {
                return Ok(None);
            };
            Ok(Some(Where::Magic {
                base: held.info()?.ino,
                rest,
            }))
        }
        Magic::Cwd => Ok(cwd::base().map(|base| Where::Magic { base, rest })),
        Magic::Exe => Ok(None),
    }
}

/// Whether a path of this call can be ours at all without `dirfd`; used for calls such as
/// `inotify_add_watch` that we refuse inside the mount.
pub(crate) fn is_inside(c: &Call, arg: Arg) -> bool {
    let mut room = NameRoom::new();
    matches!(
        resolve(c, arg, follow(true), &mut room),
        Ok(Resolved::Ours(_))
    )
}

/// Whether the path names a directory above the mount point that the kernel lacks.
pub(crate) fn is_above(c: &Call, arg: Arg) -> bool {
    let mut looked = *c;
    looked.nr |= LOOK;
    let mut room = NameRoom::new();
    let found = resolve(&looked, arg, follow(false), &mut room);
    matches!(found, Ok(Resolved::Ancestor(1..)))
}

const _: () = assert!(nr::FACCESSAT2 < LOOK);
