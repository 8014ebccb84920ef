//! x86-64.

macro_rules! vector_list {
    ($op:literal, store, $reg:literal, $base:literal) => {
        concat!(
            vector_list!(@s $op, $reg, $base, "0", "0"), vector_list!(@s $op, $reg, $base, "1", "32"),
            vector_list!(@s $op, $reg, $base, "2", "64"), vector_list!(@s $op, $reg, $base, "3", "96"),
            vector_list!(@s $op, $reg, $base, "4", "128"), vector_list!(@s $op, $reg, $base, "5", "160"),
            vector_list!(@s $op, $reg, $base, "6", "192"), vector_list!(@s $op, $reg, $base, "7", "224"),
            vector_list!(@s $op, $reg, $base, "8", "256"), vector_list!(@s $op, $reg, $base, "9", "288"),
            vector_list!(@s $op, $reg, $base, "10", "320"), vector_list!(@s $op, $reg, $base, "11", "352"),
            vector_list!(@s $op, $reg, $base, "12", "384"), vector_list!(@s $op, $reg, $base, "13", "416"),
            vector_list!(@s $op, $reg, $base, "14", "448"), vector_list!(@s $op, $reg, $base, "15", "480"),
        )
    };
    ($op:literal, load, $reg:literal, $base:literal) => {
        concat!(
            vector_list!(@l $op, $reg, $base, "0", "0"), vector_list!(@l $op, $reg, $base, "1", "32"),
            vector_list!(@l $op, $reg, $base, "2", "64"), vector_list!(@l $op, $reg, $base, "3", "96"),
            vector_list!(@l $op, $reg, $base, "4", "128"), vector_list!(@l $op, $reg, $base, "5", "160"),
            vector_list!(@l $op, $reg, $base, "6", "192"), vector_list!(@l $op, $reg, $base, "7", "224"),
            vector_list!(@l $op, $reg, $base, "8", "256"), vector_list!(@l $op, $reg, $base, "9", "288"),
            vector_list!(@l $op, $reg, $base, "10", "320"), vector_list!(@l $op, $reg, $base, "11", "352"),
            vector_list!(@l $op, $reg, $base, "12", "384"), vector_list!(@l $op, $reg, $base, "13", "416"),
            vector_list!(@l $op, $reg, $base, "14", "448"), vector_list!(@l $op, $reg, $base, "15", "480"),
        )
    };
    (@s $op:literal, $reg:literal, $base:literal, $n:literal, $at:literal) => {
        concat!("    ", $op, " [", $base, " + ", $at, "], ", $reg, $n, "\n")
    };
    (@l $op:literal, $reg:literal, $base:literal, $n:literal, $at:literal) => {
        concat!("    ", $op, " ", $reg, $n, ", [", $base, " + ", $at, "]\n")
    };
}

mod analyse;
pub(crate) mod context;
mod emit;
pub(crate) mod frame;
mod gate;
pub mod nr;
#[cfg(test)]
mod tests;

pub(crate) use analyse::{analyse, class_of, has_raw_calls};
pub(crate) use emit::{Cells, emit};

use core::sync::atomic::AtomicU32;

/// Changes with the code that writes images, so that none of an older build is used.
pub(crate) const SOURCE_SUM: u64 = crate::image::fnv(include_bytes!("emit.rs"))
    ^ crate::image::fnv(include_bytes!("analyse.rs")).rotate_left(1);

/// 1 when the processor has AVX and can tell whether its state is in use.
pub(crate) static WIDE_VECTORS: AtomicU32 = AtomicU32::new(0);

/// Address of the calling thread's block.
#[inline(always)]
pub(crate) fn thread_block() -> usize {
    let address: usize;
    // SAFETY: reads the thread control block's self pointer and a constant of the dynamic linker.
    unsafe {
        core::arch::asm!(
            "mov {t}, qword ptr [rip + pil4dfs_tls@GOTTPOFF]",
            "add {t}, qword ptr fs:[0]",
            t = out(reg) address,
            options(nostack, pure, readonly)
        );
    }
    address
}

unsafe extern "sysv64" {
    fn pil4dfs_gate();
    fn pil4dfs_gate_path();
    fn pil4dfs_gate_path_at();
    fn pil4dfs_gate_clone_pre();
    fn pil4dfs_gate_clone_post();
    fn pil4dfs_abandon();
    fn pil4dfs_restorer();
    static pil4dfs_native_nested: u8;
    static pil4dfs_native_alone: u8;
    static pil4dfs_native_pass: u8;
    static pil4dfs_native_path: u8;
    static pil4dfs_native_sud: u8;
    static pil4dfs_gate_end: u8;
    fn pil4dfs_native();
    fn pil4dfs_trapped_native();
    fn pil4dfs_trapped();
    fn pil4dfs_trapped_fork();
    fn pil4dfs_trapped_thread();
    static pil4dfs_path_read: u8;
    fn pil4dfs_path_fault();
}

/// Where a hook goes on whose dispatcher faulted.
pub(crate) fn abandon() -> usize {
    pil4dfs_abandon as *const () as usize
}

/// A signal restorer, for handlers that were installed without one.
pub(crate) fn restorer() -> usize {
    pil4dfs_restorer as *const () as usize
}

/// If `address` is at or directly behind a `syscall` instruction of the gate that runs the
/// program's call with the program's registers: the distance from its start, and what lies above
/// the return address on the stack.
pub(crate) fn native_in_gate(address: usize) -> Option<(usize, usize)> {
    let sites = [
        (&raw const pil4dfs_native_nested as usize, 0),
        (&raw const pil4dfs_native_alone as usize, 0),
        (&raw const pil4dfs_native_pass as usize, 0),
        (&raw const pil4dfs_native_sud as usize, 0),
        (&raw const pil4dfs_native_path as usize, 16),
    ];
    sites
        .iter()
        .map(|(site, above)| (address.wrapping_sub(*site), *above))
        .find(|(behind, _)| *behind == 0 || *behind == 2)
}

pub(crate) fn gate() -> usize {
    pil4dfs_gate as *const () as usize
}

/// Start and length of the code whose system calls the kernel never dispatches.
pub(crate) fn allowed_range() -> (usize, usize) {
    (gate(), &raw const pil4dfs_gate_end as usize - gate())
}

pub(crate) fn native() -> usize {
    pil4dfs_native as *const () as usize
}

/// Where a call that trapped goes on: see the gate.
pub(crate) struct Trapped;

impl Trapped {
    pub(crate) fn native() -> usize {
        pil4dfs_trapped_native as *const () as usize
    }
    pub(crate) fn hook() -> usize {
        pil4dfs_trapped as *const () as usize
    }
    pub(crate) fn fork() -> usize {
        pil4dfs_trapped_fork as *const () as usize
    }
    pub(crate) fn thread() -> usize {
        pil4dfs_trapped_thread as *const () as usize
    }
}

pub(crate) fn gate_path() -> usize {
    pil4dfs_gate_path as *const () as usize
}

pub(crate) fn gate_path_at() -> usize {
    pil4dfs_gate_path_at as *const () as usize
}

/// The instruction of the gate that reads the program's path, and where to go on if it faults.
pub(crate) fn path_read() -> (usize, usize) {
    (
        &raw const pil4dfs_path_read as usize,
        pil4dfs_path_fault as *const () as usize,
    )
}

pub(crate) fn gate_clone_pre() -> usize {
    pil4dfs_gate_clone_pre as *const () as usize
}

pub(crate) fn gate_clone_post() -> usize {
    pil4dfs_gate_clone_post as *const () as usize
}

/// The thread pointer (`fs` base), as the thread control block itself says.
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the first word of the thread control block is its own address.
    unsafe {
        core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) pointer,
            options(nostack, pure, readonly));
    }
    pointer
}

core::arch::global_asm!(
    ".pushsection .text.pil4dfs_features,\"ax\",@progbits",
    ".weak __x86_get_cpuid_feature_leaf",
    ".popsection"
);

/// glibc's `struct cpuid_feature`: what the processor has, and what of it may be used.
#[repr(C)]
struct FeatureLeaf {
    present: [u32; 4],
    active: [u32; 4],
}

/// Can AVX be used, and does the processor tell whether its state is in use?
///
/// Under a hypervisor every `cpuid` instruction is an exit of several microseconds, so the answer
/// comes from the dynamic linker where it gives one (glibc 2.33 and later).
fn has_avx_in_use() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    const XGETBV_1: u32 = 1 << 2;
    const ECX: usize = 2;
    let address: usize;
    // SAFETY: reads the global offset table; a missing weak symbol reads as null.
    unsafe {
        core::arch::asm!("mov {}, qword ptr [rip + __x86_get_cpuid_feature_leaf@GOTPCREL]",
            out(reg) address, options(nostack, pure, readonly));
    }
    if address != 0 {
        // SAFETY: the dynamic linker's public function of this name has this type.
        let leaf = unsafe {
            core::mem::transmute::<usize, extern "C" fn(u32) -> *const FeatureLeaf>(address)
        };
        // Indices 0 and 3: leaf 1, and leaf 13 with sub-leaf 1.
        // SAFETY: the function returns null or a record that lives as long as the process.
        if let (Some(basic), Some(state)) = unsafe { (leaf(0).as_ref(), leaf(3).as_ref()) } {
            return basic.active[ECX] & AVX != 0 && state.present[0] & XGETBV_1 != 0;
        }
    }
    let basic = __cpuid(1).ecx;
    basic & OSXSAVE != 0
        && basic & AVX != 0
        && __cpuid(0).eax >= 13
        && __cpuid_count(13, 1).eax & XGETBV_1 != 0
}

/// Finds out what the processor has; called once before the gate is used.
pub(crate) fn prepare() {
    if has_avx_in_use() {
        WIDE_VECTORS.store(1, core::sync::atomic::Ordering::Release);
        sys::uaccess::allow_avx();
    }
}
