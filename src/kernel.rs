//! Kernel calls the dispatcher makes itself, always on its own behalf or as the program asked.
//!
//! The only file that turns numbers into a system call; everything else is safe code on top.

use crate::abi::nr;
use core::ffi::CStr;
use sys::{Errno, Result};

/// Makes call `nr` with these arguments and returns the kernel's result (`-errno` on failure).
///
/// Addresses among the arguments are the program's own, which the kernel checks as it would for
/// the program, or come from [`addr`] of a live buffer of ours. Calls that would pull away our own
/// memory or descriptors are never made through here.
pub(crate) fn raw(nr: usize, args: [usize; 6]) -> isize {
    // SAFETY: as the function's contract says; the kernel validates every address it uses.
    unsafe { sys::raw::syscall(nr, args) }
}

/// [`raw`] with up to six arguments and the result split.
macro_rules! call {
    ($nr:expr $(, $arg:expr)* $(,)?) => {{
        let given: &[usize] = &[$($arg as usize),*];
        let mut args = [0usize; 6];
        for (slot, value) in args.iter_mut().zip(given) {
            *slot = *value;
        }
        sys::Errno::from_ret($crate::kernel::raw($nr as usize, args))
    }};
}
pub(crate) use call;

/// Address of a buffer of ours, for [`raw`].
pub(crate) fn addr<T: ?Sized>(value: &T) -> usize {
    core::ptr::from_ref(value).cast::<u8>() as usize
}

/// Address of a buffer of ours that the kernel may write to.
pub(crate) fn addr_mut<T: ?Sized>(value: &mut T) -> usize {
    core::ptr::from_mut(value).cast::<u8>() as usize
}

/// Calling thread's id as the kernel knows it.
pub(crate) fn gettid() -> i32 {
    raw(nr::GETTID, [0; 6]) as i32
}

/// Calling process's id.
pub(crate) fn getpid() -> i32 {
    raw(nr::GETPID, [0; 6]) as i32
}

/// `openat(2)` relative to the kernel's working directory.
pub(crate) fn open(path: &CStr, flags: u32) -> Result<i32> {
    call!(
        nr::OPENAT,
        abi_cwd(),
        addr(path.to_bytes_with_nul()),
        flags,
        0
    )
    .map(|fd| fd as i32)
}

/// `AT_FDCWD` as a register value.
pub(crate) fn abi_cwd() -> usize {
    crate::abi::AT_FDCWD as isize as usize
}

/// `close(2)` of a descriptor of ours.
pub(crate) fn close(fd: i32) {
    let _gone = raw(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]);
}

/// Whether the kernel finds something at the NUL-terminated path.
pub(crate) fn finds(path: &[u8]) -> bool {
    call!(nr::FACCESSAT, abi_cwd(), addr(path), 0).is_ok()
}

/// `readlinkat(2)`: the target's bytes, at most `buf.len()` of them.
pub(crate) fn readlink<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8]> {
    let len = call!(
        nr::READLINKAT,
        abi_cwd(),
        addr(path.to_bytes_with_nul()),
        addr_mut(buf),
        buf.len()
    )?;
    buf.get(..len).ok_or(Errno::EIO)
}

/// Anonymous private memory, zeroed; `None` when the kernel has none.
pub(crate) fn map_anonymous(len: usize) -> Option<usize> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_PRIVATE_ANONYMOUS_NORESERVE: usize = 0x2 | 0x20 | 0x4000;
    call!(
        nr::MMAP,
        0,
        len,
        PROT_READ_WRITE,
        MAP_PRIVATE_ANONYMOUS_NORESERVE,
        usize::MAX,
        0
    )
    .ok()
}

/// Gives back memory from [`map_anonymous`].
pub(crate) fn unmap(address: usize, len: usize) {
    let _gone = raw(nr::MUNMAP, [address, len, 0, 0, 0, 0]);
}

/// A small NUL-terminated text built on the stack, for paths like `/proc/self/fd/7`.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// Formats into the buffer; what does not fit is cut off.
    pub(crate) fn new(args: core::fmt::Arguments<'_>) -> Self {
        let mut text = Text {
            bytes: [0; N],
            len: 0,
        };
        let _cut = core::fmt::Write::write_fmt(&mut text, args);
        text
    }

    /// The text as a C string.
    pub(crate) fn c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// The bytes without the NUL.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl<const N: usize> core::fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for byte in s.bytes() {
            if self.len + 1 >= N {
                return Err(core::fmt::Error);
            }
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Formats a [`Text`].
macro_rules! text {
    ($len:literal, $($arg:tt)*) => {
        $crate::kernel::Text::<$len>::new(format_args!($($arg)*))
    };
}
pub(crate) use text;
