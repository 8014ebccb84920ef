//! Asynchronous requests (libaio): those on our files are done when they are submitted.
//!
//! The kernel then tells of them: the program's request is turned into one that completes at once
//! with the same result, a write of that many bytes to `/dev/null`, submitted in the program's own
//! block and put back afterwards. So the event stands in the kernel's ring, where programs look
//! for it, with the right address, number and eventfd, among the events of other files. A failure
//! cannot be made to order: its event fails, and gets its errno in `io_getevents`.

use crate::abi::{self, IoEvent, Iocb, nr};
use crate::calls::data;
use crate::dispatch::{After, Served, Stop};
use crate::kernel;
use crate::{files, user};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use intercept::Call;
use sys::{Errno, Result, own_fd};

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const POLL: u16 = 5;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;
/// Offset of the buffer and its length in a request: a vector of one.
const BUFFER: usize = 24;
/// Flag: an eventfd is to be told.
const RESFD: u32 = 1;
/// An address for a write that looks at none.
const NOWHERE: u64 = 0x1_0000;

/// `/dev/null`, once it was needed.
static NULL: AtomicI32 = AtomicI32::new(-1);

/// Requests that are altered at the moment: whoever gets their event must not see them so.
static ALTERED: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
/// Requests that failed, and with what; their events have not been seen yet.
static FAILED: [(AtomicU64, AtomicU32); 64] =
    [const { (AtomicU64::new(0), AtomicU32::new(0)) }; 64];

/// `io_submit(2)`.
pub(crate) fn io_submit(c: &mut Call) -> Served {
    let [context, count, list, ..] = c.args;
    let count = isize::try_from(count).unwrap_or(0).clamp(0, 65536) as usize;
    if intercept::in_vfork_child() || first_of_ours(list, 0, count) == count {
        return Err(Stop::Pass);
    }
    // A wrong context is refused before anything is done.
    submit(context, list, 0, 0)?;
    let mut done = 0;
    while done < count {
        let ours = first_of_ours(list, done, count);
        let submitted = if ours > done {
            submit(context, list, done, ours - done)
        } else {
            submit_ours(context, list, done)
        };
        match submitted {
            Ok(n) => done += n,
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => return Ok(done),
        }
        if done < ours {
            return Ok(done);
        }
    }
    Ok(done)
}

/// Index of the first request from `from` on that concerns a file of ours; `count` if there is none.
fn first_of_ours(list: usize, from: usize, count: usize) -> usize {
    let is_ours = |index: &usize| {
        let block = user::get::<usize>(list + index * size_of::<usize>());
        block
            .and_then(user::get::<Iocb>)
            .is_ok_and(|iocb| iocb.opcode != POLL && files::is_ours(iocb.fildes))
    };
    (from..count).find(is_ours).unwrap_or(count)
}

/// Has the kernel take `count` requests; returns how many it took.
fn submit(context: usize, list: usize, from: usize, count: usize) -> Result<usize> {
    let list = list + from * size_of::<usize>();
    let args = [context, count, list, 0, 0, 0];
    match kernel::raw(nr::IO_SUBMIT, args) {
        taken @ 0.. => Ok(taken as usize),
        failed => Err(Errno::new(-failed as i32)),
    }
}

/// Does the request at `index` and has the kernel tell of it.
fn submit_ours(context: usize, list: usize, index: usize) -> Result<usize> {
    let block = user::get::<usize>(list + index * size_of::<usize>())?;
    let wanted = user::get::<Iocb>(block)?;
    let null = null()?;
    let outcome = match carry_out(block, &wanted) {
        // What the kernel finds before it takes a request.
        Err(errno @ (Errno::EBADF | Errno::EINVAL | Errno::EOPNOTSUPP)) => return Err(errno),
        Err(Errno::EISDIR) => return Err(Errno::EINVAL),
        outcome => outcome,
    };
    let substitute = Iocb {
        opcode: PWRITE,
        // On the placeholder it fails.
        fildes: if outcome.is_ok() { null } else { wanted.fildes },
        buffer: NOWHERE,
        bytes: outcome.unwrap_or(1) as u64,
        flags: wanted.flags & RESFD,
        resfd: wanted.resfd,
        data: wanted.data,
        ..Iocb::default()
    };
    let failure = outcome.err().map(|errno| fail(block, errno));
    let altered = alter(block);
    user::put(block, &substitute)?;
    let told = submit(context, list, index, 1);
    let restored = user::put(block, &Iocb { key: 0, ..wanted });
    if let Some(slot) = altered {
        slot.store(0, Ordering::Release);
    }
    if told != Ok(1)
        && let Some(Some(slot)) = failure
    {
        slot.store(0, Ordering::Release);
    }
    restored.and(told)
}

/// Does what the request in `block` asks for.
fn carry_out(block: usize, wanted: &Iocb) -> Result<usize> {
    let fd = wanted.fildes as usize;
    let (number, vector, count) = match wanted.opcode {
        FSYNC | FDSYNC if wanted.buffer | wanted.bytes | wanted.offset as u64 != 0 => {
            return Err(Errno::EINVAL);
        }
        FSYNC => return value(data::fsync(&mut call(nr::FSYNC, [fd, 0, 0, 0, 0, 0]))),
        FDSYNC => {
            return value(data::fsync(&mut call(nr::FDATASYNC, [fd, 0, 0, 0, 0, 0])));
        }
        PREAD => (nr::PREADV2, block + BUFFER, 1),
        PWRITE => (nr::PWRITEV2, block + BUFFER, 1),
        PREADV => (nr::PREADV2, wanted.buffer as usize, wanted.bytes as usize),
        PWRITEV => (nr::PWRITEV2, wanted.buffer as usize, wanted.bytes as usize),
        _ => return Err(Errno::EINVAL),
    };
    if wanted.offset < 0 || wanted.reserved != 0 {
        return Err(Errno::EINVAL);
    }
    let offset = wanted.offset as usize;
    let mut call = call(
        number,
        [fd, vector, count, offset, 0, wanted.rw_flags as usize],
    );
    match number {
        nr::PREADV2 => value(data::preadv2(&mut call)),
        _ => value(data::pwritev2(&mut call)),
    }
}

fn call(nr: usize, args: [usize; 6]) -> Call {
    Call { nr, args }
}

fn value(served: Served) -> Result<usize> {
    match served {
        Ok(value) => Ok(value),
        Err(Stop::Fail(errno)) => Err(errno),
        // Closed meanwhile.
        Err(_) => Err(Errno::EBADF),
    }
}

fn null() -> Result<i32> {
    let known = NULL.load(Ordering::Acquire);
    if known >= 0 {
        return Ok(known);
    }
    let opened =
        kernel::open(c"/dev/null", abi::O_WRONLY | abi::O_CLOEXEC).or(Err(Errno::EINVAL))?;
    let made = own_fd::keep(opened)?;
    match NULL.compare_exchange(-1, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(made),
        Err(other) => {
            own_fd::close(made);
            Ok(other)
        }
    }
}

/// Takes a slot for a request; `None` when too many threads submit at once.
fn alter(block: usize) -> Option<&'static AtomicU64> {
    ALTERED.iter().find(|slot| take(slot, block))
}

fn fail(block: usize, errno: Errno) -> Option<&'static AtomicU64> {
    let (slot, value) = FAILED.iter().find(|(slot, _)| take(slot, block))?;
    value.store(-(errno.as_ret() as i32) as u32, Ordering::Release);
    Some(slot)
}

fn take(slot: &AtomicU64, block: usize) -> bool {
    slot.compare_exchange(0, block as u64, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

/// `io_getevents(2)`, `io_pgetevents(2)`. While one waits, another thread may submit the first
/// request of ours.
pub(crate) fn io_getevents(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Events))
}

/// Their second half: `count` events have arrived.
pub(crate) fn arrived(c: &Call, count: isize) {
    for index in 0..usize::try_from(count).unwrap_or(0) {
        let at = c.args[3] + index * size_of::<IoEvent>();
        let Ok(mut event) = user::get::<IoEvent>(at) else {
            return;
        };
        wait_for_submitter(event.object);
        if event.result >= 0 {
            continue;
        }
        let failed = FAILED
            .iter()
            .find(|(slot, _)| slot.load(Ordering::Acquire) == event.object);
        if let Some((slot, value)) = failed {
            event.result = -i64::from(value.load(Ordering::Acquire));
            slot.store(0, Ordering::Release);
            if user::put(at, &event).is_err() {
                return;
            }
        }
    }
}

/// Until the request is again what the program wrote. The submitter is a running thread of this
/// process, a system call away from it.
fn wait_for_submitter(block: u64) {
    const LOOKS_MAX: usize = 1_000_000;
    for slot in &ALTERED {
        for _ in 0..LOOKS_MAX {
            if slot.load(Ordering::Acquire) != block {
                break;
            }
            let _yielded = kernel::raw(nr::SCHED_YIELD, [0; 6]);
        }
    }
}

/// In the child of a fork: requests are the parent's.
pub(crate) fn after_fork() {
    for slot in ALTERED.iter().chain(FAILED.iter().map(|(slot, _)| slot)) {
        slot.store(0, Ordering::Relaxed);
    }
}
