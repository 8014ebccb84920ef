//! Copies to and from memory that may not be there: program pointers and mapped pool pages.
//!
//! Every access happens in one block of assembly; [`fix_up`] recognises a fault in it and makes
//! the routine return failure. [`install`] sets handlers for SIGSEGV and SIGBUS for programs of
//! our own; inside a host program the interception layer does that and calls [`fix_up`].

use crate::{Errno, Result};

/// The memory was not there, not readable or not writable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

impl From<Fault> for Errno {
    /// A bad program pointer (`EFAULT`). For pool pages map a fault to `EIO` instead.
    fn from(_: Fault) -> Errno {
        Errno::EFAULT
    }
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
    "6:  mov rcx, rdx",
    "    rep movsb",
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
    "    prefetchnta [rsi + 512]",
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
    "    mov eax, 1",
    "    ret",
    ".popsection",
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
