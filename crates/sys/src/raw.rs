//! The `syscall` instruction itself, with the kernel's return convention (`-errno`).
//!
//! Processor-specific: this is the only place that knows how a system call is made.

/// Number of `madvise(2)`, for advice that the crates do not know.
pub const MADVISE: usize = if cfg!(target_arch = "x86_64") {
    28
} else {
    233
};

/// Number of `mincore(2)`, which no crate has.
pub const MINCORE: usize = if cfg!(target_arch = "x86_64") {
    27
} else {
    232
};

/// `MADV_POPULATE_WRITE` (`madvise(2)`, Linux 5.14): a fault for a store to each page, at once.
pub const POPULATE_WRITE: usize = 23;

/// Makes system call `nr` with up to six arguments and returns the kernel's raw result.
///
/// # Safety
/// The call must be sound for the arguments given: pointers must be valid for what the kernel
/// does with them, and descriptors or mappings must not be pulled away from their owners.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn syscall(nr: usize, a: [usize; 6]) -> isize {
    let ret: isize;
    // SAFETY: the instruction clobbers only rax, rcx and r11; the caller vouches for the call.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr as isize => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    ret
}

/// Makes system call `nr` with up to six arguments and returns the kernel's raw result.
///
/// # Safety
/// As on x86-64.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn syscall(nr: usize, a: [usize; 6]) -> isize {
    let ret: isize;
    // SAFETY: the kernel preserves every register but x0; the caller vouches for the call.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") nr,
            inlateout("x0") a[0] as isize => ret,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack)
        );
    }
    ret
}

/// [`syscall`] with a shorter argument list and the result split into value and error.
#[macro_export]
macro_rules! syscall {
    ($nr:expr $(, $arg:expr)* $(,)?) => {{
        let mut args = [0usize; 6];
        let mut next = 0;
        $( args[next] = $arg as usize; next += 1; )*
        let _ = next;
        $crate::Errno::from_ret($crate::raw::syscall($nr as usize, args))
    }};
}
