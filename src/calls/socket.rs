//! Names of `AF_UNIX` sockets in the mount: where a program gives one, the kernel gets the name of its
//! own socket instead; where the kernel gives that, the program gets the path that was bound.

use super::special::{BOUND, NODE, bound_name, kernel_name, lend};
use crate::abi::*;
use crate::dispatch::{After, Served, Stop};
use crate::handover::{self, MMSGHDR_BYTES};
use crate::kernel::{self, addr, addr_mut, call, text};
use crate::route::{self, Arg, Resolved, Spot};
use crate::user::NameRoom;
use crate::{cred, user};
use core::sync::atomic::{AtomicBool, Ordering};
use dfs::Ino;
use intercept::Call;
use std::boxed::Box;
use std::vec::Vec;
use sys::{Errno, Result};

const AF_UNIX: u16 = 1;
/// Bytes of `sun_path`, and of what is before it.
const SUN_PATH: usize = 108;
const HEAD: usize = 2;
const SOCKADDR_MAX: usize = 128;

/// The process has to do with a socket in the mount: peers may have names there.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// The path in a socket address, NUL-terminated; `None` if it is of another kind.
fn socket_path(address: usize, len: usize) -> Option<Vec<u8>> {
    let len = len.checked_sub(HEAD)?.min(SUN_PATH);
    if len == 0 || user::get::<u16>(address) != Ok(AF_UNIX) {
        return None;
    }
    let mut path = [0u8; SUN_PATH];
    let path = path.get_mut(..len)?;
    user::get_bytes(address + HEAD, path).ok()?;
    if path.first() == Some(&0) {
        return None;
    }
    let mut path: Vec<u8> = path.iter().copied().take_while(|&b| b != 0).collect();
    path.push(0);
    Some(path)
}

fn in_mount<'n>(
    path: &[u8],
    room: &'n mut NameRoom,
) -> core::result::Result<Option<Spot<'n>>, Stop> {
    let probe = Call {
        nr: nr::STAT,
        args: [addr(path), 0, 0, 0, 0, 0],
    };
    match route::resolve(&probe, Arg::path(0), route::follow(true), room) {
        Ok(Resolved::Ours(spot)) => Ok(Some(spot)),
        Err(Stop::Fail(errno)) => Err(errno.into()),
        _ => Ok(None),
    }
}

fn kernel_address(ino: Ino) -> Vec<u8> {
    let mut address = AF_UNIX.to_ne_bytes().to_vec();
    address.extend_from_slice(kernel_name(ino).c_str().to_bytes_with_nul());
    address
}

/// `bind(2)` of a socket to a name in the mount.
pub(crate) fn bind(c: &mut Call) -> Served {
    const ALL: u32 = 0o777;
    let path = socket_path(c.args[1], c.args[2]).ok_or(Stop::Pass)?;
    let mut room = NameRoom::new();
    let spot = in_mount(&path, &mut room)?.ok_or(Stop::Pass)?;
    if spot.target.is_some() {
        return Err(Errno::EADDRINUSE.into());
    }
    let name = spot.name;
    let cred = cred::current();
    let ino = spot.fs.mknod(&cred, spot.parent, name, S_IFSOCK | ALL, 0)?;
    let address = kernel_address(ino);
    let bound: Result<usize> = call!(nr::BIND, c.args[0], addr(address.as_slice()), address.len());
    if let Err(errno) = bound {
        spot.fs.unlink(&cred, spot.parent, name)?;
        return Err(errno.into());
    }
    IN_USE.store(true, Ordering::Relaxed);
    let link = bound_name(ino);
    let link = addr(link.c_str().to_bytes_with_nul());
    // Without it the kernel's name is shown.
    let _told = kernel::raw(
        nr::SYMLINKAT,
        [addr(path.as_slice()), kernel::abi_cwd(), link, 0, 0, 0],
    );
    Ok(0)
}

/// The kernel's address of the socket in the mount that an address of the program names.
fn reached(address: usize, len: usize) -> core::result::Result<Vec<u8>, Stop> {
    const WRITE: u32 = 2;
    let path = socket_path(address, len).ok_or(Stop::Pass)?;
    let mut room = NameRoom::new();
    let spot = in_mount(&path, &mut room)?.ok_or(Stop::Pass)?;
    let ino = spot.found()?;
    if spot.fs.stat(ino)?.mode & S_IFMT != S_IFSOCK {
        return Err(Errno::ECONNREFUSED.into());
    }
    spot.fs.access(&cred::current(), ino, WRITE)?;
    IN_USE.store(true, Ordering::Relaxed);
    Ok(kernel_address(ino))
}

/// Has the kernel make a call with another address among its arguments.
fn with_address(c: &mut Call, at: usize) -> Served {
    let address = reached(c.args[at & 7], c.args[(at + 1) & 7] as u32 as usize)?;
    c.args[(at + 1) & 7] = address.len();
    let (address, lent) = lend(address);
    c.args[at & 7] = address;
    Err(Stop::PassThenWith(After::Lent, lent))
}

/// `connect(2)` to a socket in the mount.
pub(crate) fn connect(c: &mut Call) -> Served {
    with_address(c, 1)
}

/// `sendto(2)`.
pub(crate) fn sendto(c: &mut Call) -> Served {
    with_address(c, 4)
}

/// `sendmsg(2)`: descriptors of ours get their identity first.
pub(crate) fn sendmsg(c: &mut Call) -> Served {
    let any = handover::sending(c.args[1]);
    let header = user::get::<MsgHdr>(c.args[1]).map_err(|_| Stop::Pass)?;
    match readdressed(c.args[1], &header) {
        Ok((at, lent)) => {
            c.args[1] = at;
            Err(Stop::PassThenWith(After::Lent, lent))
        }
        Err(Stop::Pass) if any => Err(Stop::PassThenWith(After::Lent, 0)),
        Err(stop) => {
            handover::not_sent(c.args[1]);
            Err(stop)
        }
    }
}

/// After a call of this module that had an argument lent, or sent descriptors of ours.
pub(crate) fn sent(c: &Call, result: isize, lent: usize) {
    if c.nr == nr::SENDMSG && result < 0 {
        handover::not_sent(c.args[1]);
    }
    if c.nr == nr::SENDMMSG {
        let done = usize::try_from(result).unwrap_or(0);
        (done..messages(c)).for_each(|index| handover::not_sent(message(c, index)));
    }
    super::special::returned(lent);
}

/// Number of messages of a `sendmmsg(2)` that are looked at.
fn messages(c: &Call) -> usize {
    const MESSAGES_MAX: usize = 1024;
    (c.args[2] as u32 as usize).min(MESSAGES_MAX)
}

fn message(c: &Call, index: usize) -> usize {
    c.args[1] + index * MMSGHDR_BYTES
}

/// A copy of the message header at `message` with the kernel's address in it; where it is, and what
/// frees it.
fn readdressed(message: usize, header: &MsgHdr) -> core::result::Result<(usize, usize), Stop> {
    let address = reached(header.name, header.namelen as usize)?;
    let len = address.len();
    let mut bytes = std::vec![0u8; size_of::<MsgHdr>()];
    user::get_bytes(message, &mut bytes)?;
    bytes.extend_from_slice(&address);
    let (at, lent) = lend(bytes);
    let changed = MsgHdr {
        name: at + size_of::<MsgHdr>(),
        namelen: len as u32,
        ..*header
    };
    user::put(at, &changed)?;
    Ok((at, lent))
}

/// `sendmmsg(2)`: those with a name in the mount go one by one.
pub(crate) fn sendmmsg(c: &mut Call) -> Served {
    let count = messages(c);
    let (mut named, mut any) = (false, false);
    for at in (0..count).map(|index| message(c, index)) {
        any |= handover::sending(at);
        named |= user::get::<MsgHdr>(at)
            .is_ok_and(|header| socket_path(header.name, header.namelen as usize).is_some());
    }
    if !named {
        return Err(match any {
            true => Stop::PassThenWith(After::Lent, 0),
            false => Stop::Pass,
        });
    }
    for index in 0..count {
        let at = message(c, index);
        let stored = match send_one(c, at) {
            Ok(sent) => user::put(at + size_of::<MsgHdr>(), &(sent as u32)).map(|()| true),
            Err(errno) if index == 0 => Err(errno),
            Err(_) => Ok(false),
        };
        if stored != Ok(true) {
            (index..count).for_each(|index| handover::not_sent(message(c, index)));
            return stored.map(|_| index).map_err(Stop::from);
        }
    }
    Ok(count)
}

fn send_one(c: &Call, message: usize) -> Result<usize> {
    let header = user::get::<MsgHdr>(message)?;
    match readdressed(message, &header) {
        Ok((at, lent)) => {
            let sent = call!(nr::SENDMSG, c.args[0], at, c.args[3]);
            super::special::returned(lent);
            sent
        }
        Err(Stop::Fail(errno)) => Err(errno),
        Err(_) => call!(nr::SENDMSG, c.args[0], message, c.args[3]),
    }
}

/// An address that the kernel is to give, kept from the program until it is translated.
#[repr(align(16))]
struct Answer {
    address: [u8; SOCKADDR_MAX],
    len: u32,
    header: MsgHdr,
    /// Where the program wants it and its length, and how much of it.
    to: usize,
    length_at: usize,
    room: usize,
    /// The program's message header, 0 if the call has none.
    message: usize,
    /// Flags of a `recvmsg(2)`.
    flags: usize,
}

impl Answer {
    fn new(to: usize, length_at: usize) -> Result<Box<Answer>> {
        let room = user::get::<i32>(length_at)?;
        Ok(Box::new(Answer {
            address: [0; SOCKADDR_MAX],
            len: SOCKADDR_MAX as u32,
            header: MsgHdr::default(),
            to,
            length_at,
            room: usize::try_from(room).map_err(|_| Errno::EINVAL)?,
            message: 0,
            flags: 0,
        }))
    }

    /// Gives the program the address, with the path that was bound in it.
    fn give(&self) -> Result<()> {
        let len = (self.len as usize).min(SOCKADDR_MAX);
        let address = self.address.get(..len).unwrap_or(&[]);
        let known = known(address);
        let address = known.as_deref().unwrap_or(address);
        user::put(self.length_at, &(address.len() as u32))?;
        let shown = address.len().min(self.room);
        user::put_bytes(self.to, address.get(..shown).unwrap_or(&[]))
    }
}

/// The address a program knows for one of the kernel's sockets that stand for ours.
fn known(address: &[u8]) -> Option<Vec<u8>> {
    let path = address.strip_prefix(&AF_UNIX.to_ne_bytes())?;
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    if !path.starts_with(NODE.as_bytes()) {
        return None;
    }
    let path = core::str::from_utf8(path).ok()?;
    let mut target = [0u8; SUN_PATH];
    let bound = kernel::readlink(text!(128, "{path}{BOUND}").c_str(), &mut target).ok()?;
    IN_USE.store(true, Ordering::Relaxed);
    let mut known = AF_UNIX.to_ne_bytes().to_vec();
    known.extend_from_slice(bound);
    known.push(0);
    Some(known)
}

/// `getsockname(2)`, `getpeername(2)`.
pub(crate) fn name_of_socket(c: &mut Call) -> Served {
    // What is wrong with the arguments is the kernel's to say.
    let mut answer = Answer::new(c.args[1], c.args[2]).map_err(|_| Stop::Pass)?;
    let (address, len) = (addr_mut(&mut answer.address), addr_mut(&mut answer.len));
    call!(c.nr, c.args[0], address, len)?;
    answer.give()?;
    Ok(0)
}

/// Has the kernel put the address into memory of ours, if the program wants one.
fn with_answer(c: &mut Call, at: usize) -> Served {
    let (to, length_at) = (c.args[at & 7], c.args[(at + 1) & 7]);
    if to == 0 || !IN_USE.load(Ordering::Relaxed) {
        return Err(Stop::Pass);
    }
    let mut answer = Answer::new(to, length_at).map_err(|_| Stop::Pass)?;
    c.args[at & 7] = addr_mut(&mut answer.address);
    c.args[(at + 1) & 7] = addr_mut(&mut answer.len);
    Err(Stop::PassThenWith(
        After::Address,
        Box::into_raw(answer) as usize,
    ))
}

/// `recvfrom(2)`.
pub(crate) fn recvfrom(c: &mut Call) -> Served {
    with_answer(c, 4)
}

/// `accept(2)`, `accept4(2)`.
pub(crate) fn accept(c: &mut Call) -> Served {
    with_answer(c, 1)
}

/// `recvmsg(2)`: descriptors may arrive; a name is translated.
pub(crate) fn recvmsg(c: &mut Call) -> Served {
    const NAMELEN: usize = 8;
    let plain = Err(Stop::PassThen(After::Recvmsg));
    if !IN_USE.load(Ordering::Relaxed) {
        return plain;
    }
    let message = c.args[1];
    let Ok(header) = user::get::<MsgHdr>(message) else {
        return plain;
    };
    if header.name == 0 {
        return plain;
    }
    let Ok(mut answer) = Answer::new(header.name, message + NAMELEN) else {
        return plain;
    };
    answer.message = message;
    answer.flags = c.args[2];
    answer.header = MsgHdr {
        name: addr_mut(&mut answer.address),
        namelen: SOCKADDR_MAX as u32,
        ..header
    };
    c.args[1] = addr_mut(&mut answer.header);
    Err(Stop::PassThenWith(
        After::Address,
        Box::into_raw(answer) as usize,
    ))
}

/// The second half: the kernel has answered.
pub(crate) fn answered(result: isize, answer: usize) -> isize {
    if answer == 0 {
        return result;
    }
    // SAFETY: the address is that of a box given away above, which comes back once.
    let mut answer = unsafe { Box::from_raw(answer as *mut Answer) };
    if result < 0 {
        return result;
    }
    if answer.message != 0 {
        answer.len = answer.header.namelen;
        let told = user::get::<MsgHdr>(answer.message).and_then(|header| {
            let header = MsgHdr {
                controllen: answer.header.controllen,
                flags: answer.header.flags,
                ..header
            };
            user::put(answer.message, &header)
        });
        handover::received(answer.message, answer.flags);
        if let Err(errno) = told {
            return errno.as_ret();
        }
    }
    // As the kernel does after the work: the message or connection is gone.
    answer
        .give()
        .map_or_else(|errno| errno.as_ret(), |()| result)
}
