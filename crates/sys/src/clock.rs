//! Clocks in nanoseconds, read through the kernel's vDSO without libc.
//!
//! The vDSO is looked up at the first use; where it is missing or damaged the system call serves.

use crate::syscall;
use core::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_arch = "x86_64")]
mod arch {
    pub(super) const SYS_CLOCK_GETTIME: usize = 228;
    pub(super) const SYS_PRCTL: usize = 157;
    pub(super) const SYS_OPENAT: usize = 257;
    pub(super) const SYS_READ: usize = 0;
    pub(super) const SYS_CLOSE: usize = 3;
    pub(super) const SYMBOL: &[u8] = b"__vdso_clock_gettime";

    #[inline]
    pub(super) fn ticks() -> u64 {
        // SAFETY: reads a counter that every x86-64 processor has; a program that forbids it
        // (PR_SET_TSC) cannot read the kernel's clock through the vDSO either.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
}
#[cfg(target_arch = "aarch64")]
mod arch {
    pub(super) const SYS_CLOCK_GETTIME: usize = 113;
    pub(super) const SYS_PRCTL: usize = 167;
    pub(super) const SYS_OPENAT: usize = 56;
    pub(super) const SYS_READ: usize = 63;
    pub(super) const SYS_CLOSE: usize = 57;
    pub(super) const SYMBOL: &[u8] = b"__kernel_clock_gettime";

    #[inline]
    pub(super) fn ticks() -> u64 {
        let (count, frequency): (u64, u64);
        // SAFETY: reads two registers that Linux lets programs read.
        unsafe {
            core::arch::asm!(
                "mrs {}, cntvct_el0", "mrs {}, cntfrq_el0",
                out(reg) count, out(reg) frequency,
                options(nomem, nostack, preserves_flags),
            );
        }
        count.wrapping_mul(1_000_000_000 / frequency.max(1))
    }
}
use arch::{SYMBOL, SYS_CLOCK_GETTIME, SYS_CLOSE, SYS_OPENAT, SYS_PRCTL, SYS_READ};

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_REALTIME_COARSE: i32 = 5;

#[repr(C)]
#[derive(Default)]
struct Timespec {
    sec: i64,
    nsec: i64,
}

type ClockGettime = unsafe extern "C" fn(i32, *mut Timespec) -> i32;

const UNKNOWN: usize = 0;
const ABSENT: usize = 1;
/// Address of the vDSO's function, or one of the above.
static FUNCTION: AtomicUsize = AtomicUsize::new(UNKNOWN);

/// Nanoseconds since 1970, exact (`CLOCK_REALTIME`).
#[inline]
pub fn realtime() -> i64 {
    read(CLOCK_REALTIME)
}

/// Nanoseconds since 1970 as of the last timer tick (`CLOCK_REALTIME_COARSE`): the time the kernel
/// itself stamps on files.
#[inline]
pub fn realtime_coarse() -> i64 {
    read(CLOCK_REALTIME_COARSE)
}

/// Nanoseconds since some point before the program began; never goes back (`CLOCK_MONOTONIC`).
#[inline]
pub fn monotonic() -> i64 {
    read(CLOCK_MONOTONIC)
}

/// A counter that costs nothing to read: up to a few counts a nanosecond, steady enough to tell a
/// fast operation from a slow one.
#[inline]
pub fn ticks() -> u64 {
    arch::ticks()
}

fn read(clock: i32) -> i64 {
    let mut time = Timespec::default();
    let function = match FUNCTION.load(Ordering::Acquire) {
        UNKNOWN => find(),
        known => known,
    };
    let served = function != ABSENT && {
        // SAFETY: the address is that of the vDSO's clock_gettime, mapped for the process's life.
        let call = unsafe { core::mem::transmute::<usize, ClockGettime>(function) };
        // SAFETY: the time is a live local.
        unsafe { call(clock, &raw mut time) == 0 }
    };
    if !served {
        // SAFETY: as above.
        let done = unsafe { syscall!(SYS_CLOCK_GETTIME, clock, &raw mut time) };
        debug_assert!(done.is_ok());
    }
    time.sec * 1_000_000_000 + time.nsec
}

#[cold]
fn find() -> usize {
    // SAFETY: the address comes from the kernel's auxiliary vector.
    let found = vdso_base()
        .and_then(|base| unsafe { lookup(base) })
        .unwrap_or(ABSENT);
    FUNCTION.store(found, Ordering::Release);
    found
}

/// The value of `AT_SYSINFO_EHDR`.
fn vdso_base() -> Option<usize> {
    const PR_GET_AUXV: usize = 0x4155_5856;
    const AT_SYSINFO_EHDR: usize = 33;
    let mut words = [0usize; 128];
    let len = size_of_val(&words);
    // SAFETY: the buffer is valid for its length; the path is terminated. The descriptor is closed
    // at once.
    let got = unsafe {
        syscall!(SYS_PRCTL, PR_GET_AUXV, words.as_mut_ptr(), len, 0, 0).or_else(|_| {
            let cwd = -100isize;
            let fd = syscall!(SYS_OPENAT, cwd, c"/proc/self/auxv".as_ptr(), 0o2_000_000, 0)?;
            let got = syscall!(SYS_READ, fd, words.as_mut_ptr(), len);
            syscall!(SYS_CLOSE, fd).and(got)
        })
    };
    got.ok()?;
    let mut pairs = words.chunks_exact(2);
    pairs
        .find(|pair| pair[0] == AT_SYSINFO_EHDR)
        .map(|pair| pair[1])
        .filter(|&base| base != 0)
}

/// Address of [`SYMBOL`] in the object at `base`.
///
/// # Safety
/// `base` must be 0-checked and that of the vDSO.
unsafe fn lookup(base: usize) -> Option<usize> {
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    const DT_HASH: u64 = 4;
    const DT_STRTAB: u64 = 5;
    const DT_SYMTAB: u64 = 6;
    const SYMBOL_LEN: usize = 24;
    // SAFETY: the kernel's own object is well formed, and all addresses in it are mapped.
    unsafe {
        let at = |offset: usize| (base + offset) as *const u8;
        if at(0).cast::<[u8; 4]>().read() != *b"\x7fELF" {
            return None;
        }
        let segments_at = at(32).cast::<u64>().read() as usize;
        let count = at(56).cast::<u16>().read() as usize;
        let (mut bias, mut dynamic) = (None, None);
        for i in 0..count {
            let segment = at(segments_at + i * 56);
            let kind = segment.cast::<u32>().read();
            let offset = segment.add(8).cast::<u64>().read();
            let va = segment.add(16).cast::<u64>().read();
            if kind == PT_LOAD && bias.is_none() {
                bias = Some(base.wrapping_add(offset as usize).wrapping_sub(va as usize));
            } else if kind == PT_DYNAMIC {
                dynamic = Some(base + offset as usize);
            }
        }
        let bias = bias?;
        let mut entry = dynamic? as *const [u64; 2];
        let (mut names, mut symbols, mut hash) = (0, 0, 0);
        while (*entry)[0] != 0 {
            let value = bias.wrapping_add((*entry)[1] as usize);
            match (*entry)[0] {
                DT_HASH => hash = value,
                DT_STRTAB => names = value,
                DT_SYMTAB => symbols = value,
                _ => {}
            }
            entry = entry.add(1);
        }
        if names == 0 || symbols == 0 {
            return None;
        }
        // Without the old hash table: the names directly follow the symbols.
        let count = match hash {
            0 => names.checked_sub(symbols)? / SYMBOL_LEN,
            table => (table as *const u32).add(1).read() as usize,
        };
        (0..count.min(64)).find_map(|i| {
            let symbol = (symbols + i * SYMBOL_LEN) as *const u8;
            let name = core::ffi::CStr::from_ptr(
                (names + symbol.cast::<u32>().read() as usize) as *const core::ffi::c_char,
            );
            let value = symbol.add(8).cast::<u64>().read() as usize;
            (name.to_bytes() == SYMBOL && value != 0).then(|| bias.wrapping_add(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn agrees_with_std() {
        let std_now = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos() as i64)
        };
        let before = std_now();
        let here = realtime();
        let after = std_now();
        assert!(before <= here && here <= after);
        let coarse = realtime_coarse();
        assert!(coarse <= realtime() && here - coarse < 100_000_000);
        assert!(monotonic() <= monotonic());
        assert!(
            FUNCTION.load(Ordering::Relaxed) > ABSENT,
            "this kernel has a vDSO"
        );
    }
}
