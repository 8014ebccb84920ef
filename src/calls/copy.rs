//! Moving bytes between descriptors, one or both of them ours.

use crate::abi::{O_ACCMODE, O_APPEND, O_PATH, O_WRONLY, RW_MAX, S_IFDIR, nr};
use crate::calls::data::{Append, write_within_limit};
use crate::dispatch::{Served, Stop};
use crate::files::{self, Held};
use crate::kernel::{self, call};
use crate::report::{Op, count};
use crate::{limits, user};
use dfs::IoVec;
use intercept::Call;
use sys::{Errno, Result};

/// Bytes moved at a time between one of our files and the kernel.
const BOUNCE: usize = 128 * 1024;

/// A buffer that is unmapped when it goes.
struct Bounce(usize);

impl Bounce {
    fn new() -> Result<Bounce> {
        kernel::map_anonymous(BOUNCE)
            .map(Bounce)
            .ok_or(Errno::ENOMEM)
    }

    fn piece(&self, len: usize) -> [IoVec; 1] {
        [IoVec {
            base: self.0 as *mut u8,
            len: len.min(BOUNCE),
        }]
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        kernel::unmap(self.0, BOUNCE);
    }
}

/// One end of a copy.
enum End {
    Ours(Held),
    Kernel(i32),
}

/// A file offset that the caller keeps (address of a `loff_t`), or the descriptor's own.
struct Place {
    address: usize,
    at: Option<u64>,
}

impl Place {
    fn read(address: usize) -> Result<Place> {
        if address == 0 {
            return Ok(Place { address, at: None });
        }
        let at: i64 = user::get(address)?;
        let at = u64::try_from(at).map_err(|_| Errno::EINVAL)?;
        Ok(Place {
            address,
            at: Some(at),
        })
    }

    fn advance(&mut self, by: usize) {
        if let Some(at) = &mut self.at {
            *at += by as u64;
        }
    }

    fn give_back(&self) -> Result<()> {
        match self.at {
            Some(at) => user::put(self.address, &at),
            None => Ok(()),
        }
    }
}

fn end(fd: i32) -> core::result::Result<End, Stop> {
    Ok(files::get(fd)?.map_or(End::Kernel(fd), End::Ours))
}

/// Flags of the files behind both ends, `EBADF` unless both can be used at all.
fn flags_of(from: &End, to: &End) -> Result<(u32, u32)> {
    const F_GETFL: usize = 3;
    let flags = |end: &End| match end {
        End::Ours(held) => held.info().map(|info| info.flags),
        End::Kernel(fd) => call!(nr::FCNTL, *fd, F_GETFL).map(|flags| flags as u32),
    };
    let (source, target) = (flags(from)?, flags(to)?);
    if (source | target) & O_PATH == 0 {
        Ok((source, target))
    } else {
        Err(Errno::EBADF)
    }
}

/// One end must be open for reading and the other for writing: `EBADF`.
fn check_modes((source, target): (u32, u32)) -> Result<()> {
    let fits = source & O_ACCMODE != O_WRONLY && target & O_ACCMODE != 0;
    if fits { Ok(()) } else { Err(Errno::EBADF) }
}

fn is_dir(end: &End) -> Result<bool> {
    match end {
        End::Ours(held) => Ok(held.info()?.kind == S_IFDIR),
        End::Kernel(_) => Ok(false),
    }
}

fn fill(from: &End, place: &Place, bounce: &Bounce, len: usize) -> Result<usize> {
    let piece = bounce.piece(len);
    match (from, place.at) {
        // SAFETY: the bounce buffer is ours and long enough.
        (End::Ours(held), None) => unsafe { held.fs.read(held.ofd, &piece) },
        // SAFETY: as above.
        (End::Ours(held), Some(at)) => unsafe { held.fs.pread(held.ofd, &piece, at as i64) },
        (End::Kernel(fd), None) => call!(nr::READ, *fd, bounce.0, piece[0].len),
        (End::Kernel(fd), Some(at)) => call!(nr::PREAD64, *fd, bounce.0, piece[0].len, at),
    }
}

fn drain(to: &End, place: &Place, bounce: &Bounce, len: usize) -> Result<usize> {
    let piece = bounce.piece(len);
    match (to, place.at) {
        (End::Ours(held), at) => {
            write_within_limit(held, &piece, at.map(|at| at as i64), Append::AsOpened)
        }
        (End::Kernel(fd), None) => call!(nr::WRITE, *fd, bounce.0, len),
        (End::Kernel(fd), Some(at)) => call!(nr::PWRITE64, *fd, bounce.0, len, at),
    }
}

const SEEK_CUR: u32 = 1;

/// Takes back what was read but not written.
fn rewind(from: &End, by: usize) {
    let back = -(by as i64);
    let undone = match from {
        End::Ours(held) => held.fs.seek(held.ofd, back, SEEK_CUR).map(drop),
        End::Kernel(fd) => call!(nr::LSEEK, *fd, back, SEEK_CUR).map(drop),
    };
    // A pipe cannot be wound back; its bytes are lost as with any short write behind it.
    debug_assert!(undone.is_ok() || matches!(from, End::Kernel(_)));
}

/// Copies until `len` bytes are through, the source ends, or the destination takes no more.
fn pump(from: &End, mut out: Place, to: &End, mut into: Place, len: usize, once: bool) -> Served {
    count(if matches!(from, End::Ours(_)) {
        Op::Read
    } else {
        Op::Write
    });
    let bounce = Bounce::new()?;
    let mut done = 0;
    let mut failed = None;
    while done < len {
        let read = match fill(from, &out, &bounce, (len - done).min(BOUNCE)) {
            Ok(0) => break,
            Ok(read) => read,
            Err(errno) => {
                failed = Some(errno);
                break;
            }
        };
        let written = drain(to, &into, &bounce, read);
        let taken = written.unwrap_or(0);
        if taken < read && out.at.is_none() {
            rewind(from, read - taken);
        }
        out.advance(taken);
        into.advance(taken);
        done += taken;
        failed = written.err();
        if taken < read || once {
            break;
        }
    }
    out.give_back()?;
    into.give_back()?;
    match failed {
        Some(errno) if done == 0 => Err(errno.into()),
        _ => Ok(done),
    }
}

const NOWHERE: Place = Place {
    address: 0,
    at: None,
};

/// `sendfile(2)`: out, in, offset of in.
pub(crate) fn sendfile(c: &mut Call) -> Served {
    let (to, from) = (end(c.args[0] as i32)?, end(c.args[1] as i32)?);
    if matches!((&to, &from), (End::Kernel(_), End::Kernel(_))) {
        return Err(Stop::Pass);
    }
    let place = Place::read(c.args[2])?;
    if place
        .at
        .is_some_and(|at| at.saturating_add(c.args[3] as u64) > i64::MAX as u64)
    {
        return Err(Errno::EINVAL.into());
    }
    let flags = flags_of(&from, &to)?;
    check_modes(flags)?;
    // Linux splices: from files only, and not to the end of one (splice(2)).
    if flags.1 & O_APPEND != 0 || c.args[3] > 0 && is_dir(&from)? {
        return Err(Errno::EINVAL.into());
    }
    pump(&from, place, &to, NOWHERE, c.args[3].min(RW_MAX), false)
}

/// `copy_file_range(2)`: in, offset, out, offset.
pub(crate) fn copy_file_range(c: &mut Call) -> Served {
    let (from, to) = (end(c.args[0] as i32)?, end(c.args[2] as i32)?);
    if matches!((&from, &to), (End::Kernel(_), End::Kernel(_))) {
        return Err(Stop::Pass);
    }
    let flags = flags_of(&from, &to)?;
    if c.args[5] != 0 {
        return Err(Errno::EINVAL.into());
    }
    if is_dir(&from)? || is_dir(&to)? {
        return Err(Errno::EISDIR.into());
    }
    check_modes(flags)?;
    match (from, to) {
        (End::Ours(from), End::Ours(to)) => {
            let (mut out, mut into) = (Place::read(c.args[1])?, Place::read(c.args[3])?);
            let len = c.args[4].min(RW_MAX);
            let (own_out, own_into) = (out.at.is_none(), into.at.is_none());
            let offset = |held: &Held| held.info().map(|info| info.offset);
            let from_at = out.at.map_or_else(|| offset(&from), Ok)?;
            let to_at = into.at.map_or_else(|| offset(&to), Ok)?;
            let len = match limits::file_size() {
                Some(limit) if to_at >= limit => return Err(limits::exceeded().into()),
                Some(limit) => len.min(usize::try_from(limit - to_at).unwrap_or(len)),
                None => len,
            };
            let done = from.fs.copy_range(from.ofd, from_at, to.ofd, to_at, len)?;
            out.advance(done);
            into.advance(done);
            out.give_back()?;
            into.give_back()?;
            for (own, held) in [(own_out, &from), (own_into, &to)] {
                if own {
                    held.fs.seek(held.ofd, done as i64, SEEK_CUR)?;
                }
            }
            Ok(done)
        }
        // As between different file systems without support: programs then read and write.
        (End::Ours(_), _) | (_, End::Ours(_)) => Err(Errno::EXDEV.into()),
        _ => Err(Stop::Pass),
    }
}

/// `splice(2)`: in, offset, out, offset; one side is a pipe.
pub(crate) fn splice(c: &mut Call) -> Served {
    let (from, to) = (end(c.args[0] as i32)?, end(c.args[2] as i32)?);
    match (&from, &to) {
        (End::Kernel(_), End::Kernel(_)) => return Err(Stop::Pass),
        // Neither is a pipe.
        (End::Ours(_), End::Ours(_)) => return Err(Errno::EINVAL.into()),
        _ => {}
    }
    check_modes(flags_of(&from, &to)?)?;
    let (out, into) = (Place::read(c.args[1])?, Place::read(c.args[3])?);
    pump(&from, out, &to, into, c.args[4].min(RW_MAX), true)
}

/// `tee(2)`: both sides must be pipes.
pub(crate) fn tee(c: &mut Call) -> Served {
    if files::is_ours(c.args[0] as i32) || files::is_ours(c.args[1] as i32) {
        return Err(Errno::EINVAL.into());
    }
    Err(Stop::Pass)
}

/// `vmsplice(2)`: only pipes.
pub(crate) fn vmsplice(c: &mut Call) -> Served {
    files::ours(c.args[0] as i32)?;
    Err(Errno::EBADF.into())
}
