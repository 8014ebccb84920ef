//! Flushes that the kernel does by itself: asked for with `io_submit`, looked at with `io_getevents`
//! (`io_setup(2)`), so that nobody has to wait for a device. `io_uring` could do the same, and is
//! forbidden in many containers.

use core::mem::MaybeUninit;
use rustix::fd::{AsRawFd, OwnedFd};
use sys::{Errno, Result};

#[cfg(target_arch = "x86_64")]
mod nr {
    pub(super) const IO_SETUP: usize = 206;
    pub(super) const IO_GETEVENTS: usize = 208;
    pub(super) const IO_SUBMIT: usize = 209;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub(super) const IO_SETUP: usize = 0;
    pub(super) const IO_SUBMIT: usize = 2;
    pub(super) const IO_GETEVENTS: usize = 4;
}

/// `IOCB_CMD_FSYNC` and `IOCB_CMD_FDSYNC` of `linux/aio_abi.h`.
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;

/// `struct iocb`.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

/// `struct io_event`: what one request has come to.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Event {
    /// The caller's number of the request.
    pub(crate) data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

impl Event {
    /// Whether it went well.
    pub(crate) fn result(&self) -> Result<()> {
        match self.result {
            0.. => Ok(()),
            error => Err(Errno::new(-error as i32)),
        }
    }
}

/// A queue of this process; it lasts until exec or exit.
#[derive(Clone, Copy)]
pub(crate) struct Queue(u64);

impl Queue {
    /// Makes a queue for `requests` at a time. `EAGAIN` when the system has too many
    /// (`fs.aio-max-nr`), `ENOSYS` where there is no such thing.
    pub(crate) fn new(requests: usize) -> Result<Queue> {
        let mut context = 0u64;
        // SAFETY: the kernel stores one word.
        unsafe { sys::syscall!(nr::IO_SETUP, requests, &raw mut context) }?;
        Ok(Queue(context))
    }

    /// The queue with a number that [`Queue::number`] gave.
    pub(crate) fn from_number(number: u64) -> Option<Queue> {
        (number != 0).then_some(Queue(number))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Asks for a flush of a file, with its attributes if `whole`; `data` comes back in the event. The
    /// descriptor may be closed at once.
    pub(crate) fn flush(self, file: &OwnedFd, whole: bool, data: u64) -> Result<()> {
        let request = Request {
            data,
            opcode: if whole { FSYNC } else { FDSYNC },
            fd: file.as_raw_fd() as u32,
            ..Request::default()
        };
        let requests = [&raw const request];
        // SAFETY: the kernel reads one pointer and what it points to, before it returns.
        unsafe { sys::syscall!(nr::IO_SUBMIT, self.0, 1usize, requests.as_ptr()) }.map(|_| ())
    }

    /// Takes what has come back, waiting for up to `wait_ns` if nothing has.
    pub(crate) fn events(self, wait_ns: i64, room: &mut [MaybeUninit<Event>]) -> Result<&[Event]> {
        let timeout = [0i64, wait_ns];
        // SAFETY: the kernel fills at most as many events as there is room for.
        let got = unsafe {
            sys::syscall!(
                nr::IO_GETEVENTS,
                self.0,
                usize::from(wait_ns > 0),
                room.len(),
                room.as_mut_ptr(),
                timeout.as_ptr()
            )
        };
        let got = match got {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        // SAFETY: the kernel has filled that many.
        Ok(unsafe { core::slice::from_raw_parts(room.as_ptr().cast(), got as usize) })
    }
}
