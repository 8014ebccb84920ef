//! Copies to and from memory that may not be there: program pointers and mapped pool pages.
//!
//! Every access happens in one block of assembly; [`fix_up`] recognises a fault in it and makes
//! the routine return failure. [`install`] sets handlers for SIGSEGV and SIGBUS for programs of
//! our own; inside a host program the interception layer does that and calls [`fix_up`].

use crate::{Errno, Result};
use core::sync::atomic::{AtomicU32, Ordering};

/// The memory was not there, not readable or not writable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

impl From<Fault> for Errno {
    /// A bad program pointer (`EFAULT`). For pool pages map a fault to `EIO` instead.
    fn from(_: Fault) -> Errno {
        Errno::EFAULT
    }
}

/// 1 when copies may use AVX.
static WIDE: AtomicU32 = AtomicU32::new(0);

/// Lets copies use AVX. For whoever has found out that the processor and the kernel have it, and who saves those
/// registers where the program does not expect them to change.
pub fn allow_avx() {
    WIDE.store(1, Ordering::Relaxed);
}

// Every routine is a leaf that leaves the stack pointer alone, so one landing serves all: it
// returns 1 to the caller. Arguments are rdi, rsi, rdx.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.pil4dfs_uaccess,\"ax\",@progbits",
    ".balign 64",
    ".globl pil4dfs_uaccess_begin",
    ".hidden pil4dfs_uaccess_begin",
    "pil4dfs_uaccess_begin:",
    // copy(dst, src, len) -> 0
    ".globl pil4dfs_copy",
    ".hidden pil4dfs_copy",
    "pil4dfs_copy:",
    "    cmp rdx, 16",
    "    ja 3f",
    "    cmp edx, 8",
    "    jae 2f",
    "    cmp edx, 4",
    "    jae 1f",
    "    test edx, edx",
    "    jz 9f",
    "    movzx eax, byte ptr [rsi]",
    "    movzx ecx, byte ptr [rsi + rdx - 1]",
    "    cmp edx, 3",
    "    jne 0f",
    "    movzx r8d, byte ptr [rsi + 1]",
    "    mov byte ptr [rdi + 1], r8b",
    "0:  mov byte ptr [rdi], al",
    "    mov byte ptr [rdi + rdx - 1], cl",
    "    jmp 9f",
    "1:  mov eax, dword ptr [rsi]",
    "    mov ecx, dword ptr [rsi + rdx - 4]",
    "    mov dword ptr [rdi], eax",
    "    mov dword ptr [rdi + rdx - 4], ecx",
    "    jmp 9f",
    "2:  mov rax, qword ptr [rsi]",
    "    mov rcx, qword ptr [rsi + rdx - 8]",
    "    mov qword ptr [rdi], rax",
    "    mov qword ptr [rdi + rdx - 8], rcx",
    "    jmp 9f",
    "3:  cmp rdx, 512",
    "    ja 6f",
    // 17..=512: pairs of 16 bytes, the last pair overlapping.
    "    movups xmm2, xmmword ptr [rsi + rdx - 16]",
    "    lea r8, [rdx - 16]",
    "    xor ecx, ecx",
    "4:  movups xmm0, xmmword ptr [rsi + rcx]",
    "    movups xmmword ptr [rdi + rcx], xmm0",
    "    add rcx, 16",
    "    cmp rcx, r8",
    "    jb 4b",
    "    movups xmmword ptr [rdi + rdx - 16], xmm2",
    "    jmp 9f",
    // Longer: first and last bytes are loaded before anything is stored, the rest goes to aligned addresses. Not
    // `rep movsb`: to an address that is not aligned, many processors do that in small steps.
    "6:  lea rcx, [rdi + 32]",
    "    and rcx, -32",
    "    mov r8, rdi",
    "    sub rcx, rdi",
    "    cmp dword ptr [rip + {wide}], 0",
    "    je 7f",
    "    vmovdqu ymm4, ymmword ptr [rsi]",
    "    vmovdqu ymm5, ymmword ptr [rsi + rdx - 128]",
    "    vmovdqu ymm6, ymmword ptr [rsi + rdx - 96]",
    "    vmovdqu ymm7, ymmword ptr [rsi + rdx - 64]",
    "    vmovdqu ymm8, ymmword ptr [rsi + rdx - 32]",
    "    lea r9, [rdi + rdx - 128]",
    "    add rsi, rcx",
    "    add rdi, rcx",
    ".balign 32",
    "5:  vmovdqu ymm0, ymmword ptr [rsi]",
    "    vmovdqu ymm1, ymmword ptr [rsi + 32]",
    "    vmovdqu ymm2, ymmword ptr [rsi + 64]",
    "    vmovdqu ymm3, ymmword ptr [rsi + 96]",
    "    vmovdqa ymmword ptr [rdi], ymm0",
    "    vmovdqa ymmword ptr [rdi + 32], ymm1",
    "    vmovdqa ymmword ptr [rdi + 64], ymm2",
    "    vmovdqa ymmword ptr [rdi + 96], ymm3",
    "    sub rsi, -128",
    "    sub rdi, -128",
    "    cmp rdi, r9",
    "    jb 5b",
    "    vmovdqu ymmword ptr [r9], ymm5",
    "    vmovdqu ymmword ptr [r9 + 32], ymm6",
    "    vmovdqu ymmword ptr [r9 + 64], ymm7",
    "    vmovdqu ymmword ptr [r9 + 96], ymm8",
    "    vmovdqu ymmword ptr [r8], ymm4",
    "    vzeroupper",
    "    jmp 9f",
    "7:  movups xmm4, xmmword ptr [rsi]",
    "    movups xmm5, xmmword ptr [rsi + 16]",
    "    movups xmm6, xmmword ptr [rsi + rdx - 64]",
    "    movups xmm7, xmmword ptr [rsi + rdx - 48]",
    "    movups xmm8, xmmword ptr [rsi + rdx - 32]",
    "    movups xmm9, xmmword ptr [rsi + rdx - 16]",
    "    lea r9, [rdi + rdx - 64]",
    "    add rsi, rcx",
    "    add rdi, rcx",
    ".balign 32",
    "8:  movups xmm0, xmmword ptr [rsi]",
    "    movups xmm1, xmmword ptr [rsi + 16]",
    "    movups xmm2, xmmword ptr [rsi + 32]",
    "    movups xmm3, xmmword ptr [rsi + 48]",
    "    movaps xmmword ptr [rdi], xmm0",
    "    movaps xmmword ptr [rdi + 16], xmm1",
    "    movaps xmmword ptr [rdi + 32], xmm2",
    "    movaps xmmword ptr [rdi + 48], xmm3",
    "    add rsi, 64",
    "    add rdi, 64",
    "    cmp rdi, r9",
    "    jb 8b",
    "    movups xmmword ptr [r9], xmm6",
    "    movups xmmword ptr [r9 + 16], xmm7",
    "    movups xmmword ptr [r9 + 32], xmm8",
    "    movups xmmword ptr [r9 + 48], xmm9",
    "    movups xmmword ptr [r8], xmm4",
    "    movups xmmword ptr [r8 + 16], xmm5",
    "9:  xor eax, eax",
    "    ret",
    // copy_nt(dst, src, len) -> 0; len >= 128
    ".globl pil4dfs_copy_nt",
    ".hidden pil4dfs_copy_nt",
    "pil4dfs_copy_nt:",
    "    mov rcx, rdi",
    "    neg rcx",
    "    and ecx, 63",
    "    sub rdx, rcx",
    "    rep movsb",
    "    mov rcx, rdx",
    "    shr rcx, 6",
    "    jz 3f",
    "2:  movups xmm0, xmmword ptr [rsi]",
    "    movups xmm1, xmmword ptr [rsi + 16]",
    "    movups xmm2, xmmword ptr [rsi + 32]",
    "    movups xmm3, xmmword ptr [rsi + 48]",
    "    movntps xmmword ptr [rdi], xmm0",
    "    movntps xmmword ptr [rdi + 16], xmm1",
    "    movntps xmmword ptr [rdi + 32], xmm2",
    "    movntps xmmword ptr [rdi + 48], xmm3",
    "    add rsi, 64",
    "    add rdi, 64",
    "    dec rcx",
    "    jnz 2b",
    "    sfence",
    "3:  mov ecx, edx",
    "    and ecx, 63",
    "    rep movsb",
    "    xor eax, eax",
    "    ret",
    // zero(dst, _, len) -> 0
    ".globl pil4dfs_zero",
    ".hidden pil4dfs_zero",
    "pil4dfs_zero:",
    "    mov rcx, rdx",
    "    xor eax, eax",
    "    rep stosb",
    "    ret",
    // cstr(dst, src, capacity) -> 0 with rdx = length, or 2 if no NUL was found
    ".globl pil4dfs_cstr",
    ".hidden pil4dfs_cstr",
    "pil4dfs_cstr:",
    "    xor ecx, ecx",
    "    pxor xmm1, xmm1",
    // Byte by byte up to a 16-byte boundary of the source, so that no load crosses a page.
    "2:  cmp rcx, rdx",
    "    jae 8f",
    "    lea rax, [rsi + rcx]",
    "    test al, 15",
    "    jz 4f",
    "3:  movzx eax, byte ptr [rsi + rcx]",
    "    mov byte ptr [rdi + rcx], al",
    "    test al, al",
    "    jz 7f",
    "    inc rcx",
    "    jmp 2b",
    "4:  lea rax, [rcx + 16]",
    "    cmp rax, rdx",
    "    ja 3b",
    "    movaps xmm0, xmmword ptr [rsi + rcx]",
    "    movaps xmm2, xmm0",
    "    pcmpeqb xmm2, xmm1",
    "    pmovmskb eax, xmm2",
    "    movups xmmword ptr [rdi + rcx], xmm0",
    "    test eax, eax",
    "    jnz 6f",
    "    add rcx, 16",
    "    jmp 2b",
    "6:  bsf eax, eax",
    "    add rcx, rax",
    "7:  mov rdx, rcx",
    "    xor eax, eax",
    "    ret",
    "8:  mov eax, 2",
    "    ret",
    ".globl pil4dfs_uaccess_end",
    ".hidden pil4dfs_uaccess_end",
    "pil4dfs_uaccess_end:",
    ".globl pil4dfs_uaccess_landing",
    ".hidden pil4dfs_uaccess_landing",
    "pil4dfs_uaccess_landing:",
    "    cmp dword ptr [rip + {wide}], 0",
    "    je 2f",
    "    vzeroupper",
    "2:  mov eax, 1",
    "    ret",
    ".popsection",
    wide = sym WIDE,
);

unsafe extern "sysv64" {
    static pil4dfs_uaccess_begin: u8;
    static pil4dfs_uaccess_end: u8;
    static pil4dfs_uaccess_landing: u8;
    fn pil4dfs_copy(dst: usize, src: usize, len: usize) -> u32;
    fn pil4dfs_copy_nt(dst: usize, src: usize, len: usize) -> u32;
    fn pil4dfs_zero(dst: usize, unused: usize, len: usize) -> u32;
}

const fn done(code: u32) -> core::result::Result<(), Fault> {
    if code == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies `len` bytes between addresses that need not be mapped. The ranges must not overlap
/// with `dst` above `src`. After a fault an unknown part is copied.
///
/// # Safety
/// Whatever is mapped in `dst..dst + len` must be the caller's or the program's to overwrite: no
/// Rust reference may cover it.
#[inline]
pub unsafe fn copy(dst: usize, src: usize, len: usize) -> core::result::Result<(), Fault> {
    // SAFETY: faults are fixed up; the destination is the caller's responsibility.
    done(unsafe { pil4dfs_copy(dst, src, len) })
}

/// As [`copy`], past the caches when there are 4096 bytes or more: for large, cold destinations.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub unsafe fn copy_nt(dst: usize, src: usize, len: usize) -> core::result::Result<(), Fault> {
    if len < 4096 {
        // SAFETY: passed on.
        return unsafe { copy(dst, src, len) };
    }
    // SAFETY: as for copy.
    done(unsafe { pil4dfs_copy_nt(dst, src, len) })
}

/// Copies from a program's or pool's memory into a buffer of ours.
#[inline]
pub fn copy_in(dst: &mut [u8], src: usize) -> core::result::Result<(), Fault> {
    // SAFETY: the destination is exclusively borrowed.
    unsafe { copy(dst.as_mut_ptr() as usize, src, dst.len()) }
}

/// Copies a buffer of ours to a program's memory.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub unsafe fn copy_out(dst: usize, src: &[u8]) -> core::result::Result<(), Fault> {
    // SAFETY: passed on.
    unsafe { copy(dst, src.as_ptr() as usize, src.len()) }
}

/// Sets `len` bytes to zero.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub unsafe fn zero(dst: usize, len: usize) -> core::result::Result<(), Fault> {
    // SAFETY: as for copy.
    done(unsafe { pil4dfs_zero(dst, 0, len) })
}

/// Plain values: every bit pattern is valid and there is no padding.
///
/// # Safety
/// Both must hold for the implementing type.
pub unsafe trait Plain: Copy {}
macro_rules! plain {
    ($($t:ty)*) => {$(
        // SAFETY: integers and arrays of integers have neither padding nor invalid patterns.
        unsafe impl Plain for $t {}
        // SAFETY: as above.
        unsafe impl<const N: usize> Plain for [$t; N] {}
    )*};
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 usize isize);

/// Reads a value from a program's memory.
#[inline]
pub fn load<T: Plain>(src: usize) -> core::result::Result<T, Fault> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the destination is a local of exactly this size.
    unsafe { copy(value.as_mut_ptr() as usize, src, size_of::<T>())? };
    // SAFETY: all bytes were written and every pattern is valid.
    Ok(unsafe { value.assume_init() })
}

/// Writes a value to a program's memory.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub unsafe fn store<T: Plain>(dst: usize, value: T) -> core::result::Result<(), Fault> {
    // SAFETY: passed on; the source is a local.
    unsafe { copy(dst, (&raw const value) as usize, size_of::<T>()) }
}

/// Copies a NUL-terminated string into `buf` and returns its length without the NUL, which is
/// copied too. `EFAULT` if it runs into memory that is not there, `ENAMETOOLONG` if there is no
/// NUL within `buf.len()` bytes.
#[inline]
pub fn read_cstr(src: usize, buf: &mut [u8]) -> Result<usize> {
    let len: usize;
    let code: u32;
    // SAFETY: writes at most buf.len() bytes to buf; faults are fixed up. The routine follows the
    // sysv64 convention and touches xmm0..2 only.
    unsafe {
        core::arch::asm!(
            "call pil4dfs_cstr",
            in("rdi") buf.as_mut_ptr(), in("rsi") src, inout("rdx") buf.len() => len,
            out("eax") code,
            clobber_abi("sysv64"),
        );
    }
    match code {
        0 => Ok(len),
        1 => Err(Errno::EFAULT),
        _ => Err(Errno::ENAMETOOLONG),
    }
}

/// Offset of `gregs[REG_RIP]` in the kernel's `struct ucontext` on x86-64.
const CONTEXT_RIP: usize = 168;

/// In a handler for SIGSEGV or SIGBUS: if the fault happened in one of these routines, makes the
/// interrupted routine fail and returns true; the handler then just returns.
///
/// # Safety
/// `context` is the third argument of a handler installed with `SA_SIGINFO`.
pub unsafe fn fix_up(context: *mut u8) -> bool {
    let begin = &raw const pil4dfs_uaccess_begin as usize;
    let end = &raw const pil4dfs_uaccess_end as usize;
    // SAFETY: the saved instruction pointer lies at this offset.
    unsafe {
        let ip = context.add(CONTEXT_RIP).cast::<usize>();
        if *ip < begin || *ip >= end {
            return false;
        }
        *ip = &raw const pil4dfs_uaccess_landing as usize;
    }
    true
}

/// Handlers for programs of our own (command line, dfuse, tests), which chain to what was there.
mod handlers {
    use crate::syscall;
    use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const SYS_RT_SIGACTION: usize = 13;
    pub(super) const SIGBUS: usize = 7;
    pub(super) const SIGSEGV: usize = 11;
    const SA_SIGINFO: usize = 4;
    const SA_RESTORER: usize = 0x0400_0000;
    const SA_ONSTACK: usize = 0x0800_0000;
    const SA_NODEFER: usize = 0x4000_0000;
    const SIG_IGN: usize = 1;

    #[repr(C)]
    #[derive(Default)]
    struct Action {
        handler: usize,
        flags: usize,
        restorer: usize,
        mask: u64,
    }

    static INSTALLED: AtomicBool = AtomicBool::new(false);
    /// Former handler and flags, for SIGBUS and SIGSEGV.
    static FORMER: [[AtomicUsize; 2]; 2] = [const { [const { AtomicUsize::new(0) }; 2] }; 2];

    core::arch::global_asm!(
        ".pushsection .text.pil4dfs_restorer,\"ax\",@progbits",
        ".hidden pil4dfs_uaccess_restorer",
        ".globl pil4dfs_uaccess_restorer",
        "pil4dfs_uaccess_restorer:",
        "    mov eax, 15",
        "    syscall",
        ".popsection"
    );
    unsafe extern "C" {
        fn pil4dfs_uaccess_restorer();
    }

    extern "C" fn handle(signal: i32, info: *mut u8, context: *mut u8) {
        // SAFETY: the kernel passes a siginfo, whose third word is si_code, and a ucontext.
        if unsafe { info.add(8).cast::<i32>().read() > 0 && super::fix_up(context) } {
            return;
        }
        let former = &FORMER[usize::from(signal as usize == SIGSEGV)];
        let (handler, flags) = (
            former[0].load(Ordering::Acquire),
            former[1].load(Ordering::Acquire),
        );
        if handler > SIG_IGN {
            // SAFETY: the address is that of a handler somebody installed with these flags.
            unsafe {
                if flags & SA_SIGINFO != 0 {
                    let call: extern "C" fn(i32, *mut u8, *mut u8) = core::mem::transmute(handler);
                    call(signal, info, context);
                } else {
                    let call: extern "C" fn(i32) = core::mem::transmute(handler);
                    call(signal);
                }
            }
            return;
        }
        // Back to the default; the instruction faults again upon return.
        let default = Action::default();
        // SAFETY: the action is a live local.
        let done = unsafe { syscall!(SYS_RT_SIGACTION, signal, &raw const default, 0, 8) };
        debug_assert!(done.is_ok());
    }

    pub(super) fn install() -> crate::Result<()> {
        if INSTALLED.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        for (slot, signal) in FORMER.iter().zip([SIGBUS, SIGSEGV]) {
            let mut old = Action::default();
            let new = Action {
                handler: handle as *const () as usize,
                flags: SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER,
                restorer: pil4dfs_uaccess_restorer as *const () as usize,
                mask: 0,
            };
            // SAFETY: both actions are live locals of the kernel's layout.
            unsafe {
                syscall!(SYS_RT_SIGACTION, signal, 0, &raw mut old, 8)?;
                slot[0].store(old.handler, Ordering::Release);
                slot[1].store(old.flags, Ordering::Release);
                syscall!(SYS_RT_SIGACTION, signal, &raw const new, 0, 8)?;
            }
        }
        Ok(())
    }
}

/// Sets handlers for SIGSEGV and SIGBUS that fix up faults of these routines and pass all others
/// on to the handlers found. For programs of our own; a second call does nothing.
///
/// # Errors
/// Those of `rt_sigaction(2)`, which do not happen for these signals.
pub fn install() -> Result<()> {
    if std::is_x86_feature_detected!("avx") {
        allow_avx();
    }
    handlers::install()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    fn mapping(pages: usize) -> usize {
        // SAFETY: a fresh anonymous mapping; its second half is made inaccessible.
        unsafe {
            let at = crate::syscall!(9, 0, pages * 4096, 3, 0x22, usize::MAX, 0).unwrap_or(0);
            assert_ne!(at, 0);
            let half = pages / 2 * 4096;
            assert!(crate::syscall!(10, at + half, half, 0).is_ok());
            at
        }
    }

    /// Calls `check` with copies that use AVX, if there is such, and with those that do not. One test at a time.
    fn with_and_without_avx(check: impl Fn()) {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        WIDE.store(0, Ordering::Relaxed);
        check();
        if std::is_x86_feature_detected!("avx") {
            allow_avx();
            check();
        }
    }

    #[test]
    fn copies_of_all_lengths_are_exact() {
        let source: Vec<u8> = (0..20_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let exact = |len: usize, (to, from): (usize, usize)| {
            let mut target = vec![0xa5u8; 20_000];
            copy_in(&mut target[to..to + len], source[from..].as_ptr() as usize).unwrap();
            assert_eq!(target[to..to + len], source[from..from + len], "{len}");
            assert!(target[to + len..].iter().all(|&b| b == 0xa5), "len {len}");
            assert!(target[..to].iter().all(|&b| b == 0xa5));
            let mut cold = vec![0xa5u8; 20_000];
            // SAFETY: within the vector.
            unsafe {
                copy_nt(
                    cold[to..].as_mut_ptr() as usize,
                    source.as_ptr() as usize,
                    len,
                )
            }
            .unwrap();
            assert_eq!(cold[to..to + len], source[..len]);
            assert!(cold[to + len..].iter().all(|&b| b == 0xa5));
        };
        with_and_without_avx(|| {
            for len in (0..1100).chain([4095, 4096, 4097, 8191, 12_345, 19_960]) {
                for shifts in [(0, 0), (1, 1), (7, 7), (0, 3), (16, 0), (31, 32), (33, 17)] {
                    exact(len, shifts);
                }
            }
        });
    }

    #[test]
    fn copies_to_lower_addresses_may_overlap() {
        let source: Vec<u8> = (0..5000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        with_and_without_avx(|| {
            for len in [513, 600, 700, 1000, 4096] {
                for by in [1, 8, 31, 32, 33, 64, 127, 128, 200] {
                    for start in 0..40 {
                        let mut bytes = source.clone();
                        let at = bytes[start..].as_mut_ptr() as usize;
                        // SAFETY: within the vector.
                        unsafe { copy(at, at + by, len) }.unwrap();
                        assert_eq!(bytes[..start], source[..start]);
                        assert_eq!(bytes[start..start + len], source[start + by..][..len]);
                        assert_eq!(bytes[start + len..], source[start + len..]);
                    }
                }
            }
        });
    }

    #[test]
    fn missing_memory_is_a_fault_on_either_side() {
        handlers::install().unwrap();
        let at = mapping(8);
        let edge = at + 4 * 4096;
        with_and_without_avx(|| {
            let mut buf = vec![1u8; 40_000];
            for len in [1, 3, 8, 16, 17, 100, 513, 5000, 16_384] {
                let over = edge - len + 1;
                assert_eq!(copy_in(&mut buf[..len], over), Err(Fault), "{len}");
                assert_eq!(copy_in(&mut buf[..len], edge - len), Ok(()));
                // SAFETY: the mapping is this test's own.
                unsafe {
                    assert_eq!(copy_out(over, &buf[..len]), Err(Fault));
                    assert_eq!(copy_out(edge - len, &buf[..len]), Ok(()));
                    assert_eq!(copy_nt(over, buf.as_ptr() as usize, len), Err(Fault));
                    assert_eq!(zero(over, len), Err(Fault));
                    assert_eq!(zero(edge - len, len), Ok(()));
                }
            }
        });
        assert_eq!(load::<u64>(8), Err(Fault));
        assert_eq!(
            load::<u64>(0x8000_0000_0000_0000),
            Err(Fault),
            "not canonical"
        );
        // SAFETY: nothing is mapped there, or it is the test's own.
        unsafe {
            assert_eq!(store(16, 5u32), Err(Fault));
            assert_eq!(store(edge - 4, 5u32), Ok(()));
        }
        assert_eq!(load::<u32>(edge - 4), Ok(5));
    }

    #[test]
    fn strings_end_at_nul_fault_or_capacity() {
        handlers::install().unwrap();
        let at = mapping(2);
        let edge = at + 4096;
        for len in 0..70usize {
            for start in [edge - len - 1, at + 3, at + 16] {
                let mut text: Vec<u8> = (0..len).map(|i| b'a' + (i % 26) as u8).collect();
                text.push(0);
                let mut buf = [0xffu8; 128];
                // SAFETY: the mapping is this test's own.
                unsafe { copy_out(start, &text).unwrap() };
                assert_eq!(read_cstr(start, &mut buf), Ok(len));
                assert_eq!(buf[..len + 1], text[..]);
                assert_eq!(read_cstr(start, &mut buf[..len]), Err(Errno::ENAMETOOLONG));
                assert_eq!(read_cstr(start, &mut buf[..len + 1]), Ok(len));
            }
        }
        // SAFETY: as above.
        unsafe { copy_out(edge - 5, b"abcde").unwrap() };
        assert_eq!(read_cstr(edge - 5, &mut [0; 64]), Err(Errno::EFAULT));
        assert_eq!(read_cstr(0, &mut [0; 64]), Err(Errno::EFAULT));
    }

    #[test]
    fn truncated_file_map_is_a_fault() {
        handlers::install().unwrap();
        // SAFETY: a memory file of one page, mapped, then truncated; all owned here.
        unsafe {
            let fd = crate::syscall!(319, c"t".as_ptr(), 1).unwrap();
            crate::syscall!(77, fd, 4096).unwrap();
            let at = crate::syscall!(9, 0, 4096, 3, 1, fd, 0).unwrap();
            assert_eq!(store(at, 1u64), Ok(()));
            crate::syscall!(77, fd, 0).unwrap();
            assert_eq!(store(at, 1u64), Err(Fault));
            assert_eq!(load::<u8>(at), Err(Fault));
            crate::syscall!(3, fd).unwrap();
        }
    }
}
