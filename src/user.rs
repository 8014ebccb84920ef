//! The program's memory, touched only through the guarded copies of `sys::uaccess`.

use crate::abi::{IOV_MAX, NAME_MAX, PATH_MAX, RW_MAX, UserIoVec};
use core::mem::MaybeUninit;
use dfs::IoVec;
use sys::{Errno, Result, uaccess};

/// Room for one path of the program; left uninitialised until a path is copied in.
pub(crate) type PathBuffer = [MaybeUninit<u8>; PATH_MAX];

/// An empty [`PathBuffer`].
pub(crate) fn path_buffer() -> PathBuffer {
    [const { MaybeUninit::uninit() }; PATH_MAX]
}

/// Room for the last component of a path.
pub(crate) struct NameRoom {
    bytes: [MaybeUninit<u8>; NAME_MAX],
    len: usize,
}

impl NameRoom {
    /// An empty one.
    pub(crate) const fn new() -> NameRoom {
        NameRoom {
            bytes: [const { MaybeUninit::uninit() }; NAME_MAX],
            len: 0,
        }
    }

    /// Copies a name in; `ENAMETOOLONG` if it is too long for one.
    pub(crate) fn keep(&mut self, name: &[u8]) -> Result<()> {
        let room = self
            .bytes
            .get_mut(..name.len())
            .ok_or(Errno::ENAMETOOLONG)?;
        for (to, from) in room.iter_mut().zip(name) {
            to.write(*from);
        }
        self.len = name.len();
        Ok(())
    }

    /// The name.
    pub(crate) fn name(&self) -> &[u8] {
        let name = self.bytes.get(..self.len).unwrap_or(&[]);
        // SAFETY: `keep` has filled the first `len` bytes.
        unsafe { core::slice::from_raw_parts(name.as_ptr().cast::<u8>(), name.len()) }
    }
}

/// Position of the first NUL, looked for eight bytes at a time.
fn find_nul(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero = word.wrapping_sub(ONES) & !word & ONES << 7;
        if zero != 0 {
            return Some(index * 8 + zero.trailing_zeros() as usize / 8);
        }
    }
    let in_rest = rest.iter().position(|&b| b == 0)?;
    Some(words.len() * 8 + in_rest)
}

/// Copies a path in, without its NUL. `EFAULT` for a wild pointer, `ENAMETOOLONG` at PATH_MAX.
pub(crate) fn path(address: usize, buffer: &mut PathBuffer) -> Result<&[u8]> {
    const STEP: usize = 64;
    const PAGE: usize = 4096;
    if address == 0 {
        return Err(Errno::EFAULT);
    }
    let mut len = 0;
    while len < PATH_MAX {
        let from = address.wrapping_add(len);
        // Never beyond the page, so that a path that ends just before an unmapped one is read.
        let step = STEP.min(PAGE - from % PAGE).min(PATH_MAX - len);
        let slot = buffer.get_mut(len..len + step).ok_or(Errno::ENAMETOOLONG)?;
        // SAFETY: the destination is ours and `step` bytes long; the source may be anything.
        unsafe { uaccess::copy(slot.as_mut_ptr() as usize, from, step)? };
        // SAFETY: the copy has just filled these bytes.
        let bytes = unsafe { core::slice::from_raw_parts(slot.as_ptr().cast::<u8>(), step) };
        if let Some(end) = find_nul(bytes) {
            let path = buffer.get(..len + end).ok_or(Errno::ENAMETOOLONG)?;
            // SAFETY: everything up to `len + end` has been filled.
            return Ok(unsafe {
                core::slice::from_raw_parts(path.as_ptr().cast::<u8>(), path.len())
            });
        }
        len += step;
    }
    Err(Errno::ENAMETOOLONG)
}

/// Plain structures of the system-call interface: any bytes are a valid value.
///
/// # Safety
/// Only for `repr(C)` types of integers, without padding bytes.
pub(crate) unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($t:ty),* $(,)?) => {
        // SAFETY: repr(C), integers only, padding spelled out.
        $(unsafe impl Plain for $t {})*
    };
}
use crate::abi;
plain!(
    u8,
    u16,
    i32,
    u32,
    i64,
    u64,
    usize,
    abi::Stat,
    abi::Statx,
    abi::Statfs,
    abi::UserIoVec,
    abi::Flock,
    abi::Timespec,
    abi::Timeval,
    abi::OpenHow,
    abi::MsgHdr,
    abi::CmsgHdr,
    abi::XattrArgs,
    abi::Iocb,
    abi::IoEvent,
);

/// Does the path at this address end in `/`? Then a final symbolic link is followed in any case
/// (`path_resolution(7)`).
pub(crate) fn ends_in_slash(address: usize) -> bool {
    let mut buffer = path_buffer();
    path(address, &mut buffer).is_ok_and(|path| path.last() == Some(&b'/'))
}

/// Reads a structure of the program.
pub(crate) fn get<T: Plain>(address: usize) -> Result<T> {
    let mut value = T::default();
    // SAFETY: T is Plain, so it may be seen and filled as bytes.
    let bytes =
        unsafe { core::slice::from_raw_parts_mut((&raw mut value).cast::<u8>(), size_of::<T>()) };
    uaccess::copy_in(bytes, address)?;
    Ok(value)
}

/// Writes a structure to the program.
pub(crate) fn put<T: Plain>(address: usize, value: &T) -> Result<()> {
    // SAFETY: T is Plain, so it may be seen as bytes.
    let bytes = unsafe {
        core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
    };
    put_bytes(address, bytes)
}

/// Copies bytes in.
pub(crate) fn get_bytes(address: usize, bytes: &mut [u8]) -> Result<()> {
    Ok(uaccess::copy_in(bytes, address)?)
}

/// Copies bytes out.
pub(crate) fn put_bytes(address: usize, bytes: &[u8]) -> Result<()> {
    // SAFETY: the program gave this address for the kernel to write to; guarded against faults.
    Ok(unsafe { uaccess::copy_out(address, bytes) }?)
}

/// An I/O vector of the program, checked as `readv(2)` does.
pub(crate) struct Vector {
    items: [IoVec; IOV_MAX],
    count: usize,
}

const EMPTY: IoVec = IoVec {
    base: core::ptr::null_mut(),
    len: 0,
};

/// Calls `serve` with the vector at `address`; `EINVAL` for too many elements or lengths that
/// overflow, `EFAULT` for a wild pointer. Bytes beyond what one call moves are cut off.
pub(crate) fn with_vector<R>(
    address: usize,
    count: usize,
    serve: impl FnOnce(&[IoVec]) -> Result<R>,
) -> Result<R> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    if count <= 16 {
        let mut few = [EMPTY; 16];
        let few = few.get_mut(..count).ok_or(Errno::EINVAL)?;
        fill(address, few)?;
        return serve(few);
    }
    let mut many = Vector {
        items: [EMPTY; IOV_MAX],
        count,
    };
    let items = many.items.get_mut(..many.count).ok_or(Errno::EINVAL)?;
    fill(address, items)?;
    serve(items)
}

fn fill(address: usize, items: &mut [IoVec]) -> Result<()> {
    let mut left = RW_MAX;
    for (index, slot) in items.iter_mut().enumerate() {
        let item: UserIoVec = get(address + index * size_of::<UserIoVec>())?;
        if item.len > isize::MAX as usize {
            return Err(Errno::EINVAL);
        }
        let len = item.len.min(left);
        left -= len;
        *slot = IoVec {
            base: item.base as *mut u8,
            len,
        };
    }
    Ok(())
}
