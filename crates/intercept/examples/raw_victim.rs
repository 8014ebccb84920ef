//! A program that makes its system calls itself, as Go and others do: opens and reads demo files
//! from threads, forks and signal handlers. Prints `ok`.

use std::arch::asm;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn setitimer(which: i32, new: *const [i64; 4], old: *mut [i64; 4]) -> i32;
    fn waitpid(pid: i32, status: *mut i32, flags: i32) -> i32;
}

#[inline(never)]
fn call(nr: usize, a: [usize; 5]) -> isize {
    let ret;
    // SAFETY: every caller passes valid arguments.
    unsafe {
        asm!("syscall", inlateout("rax") nr => ret, in("rdi") a[0], in("rsi") a[1],
            in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") 0,
            out("rcx") _, out("r11") _);
    }
    ret
}

/// open, read and close of the demo file, all raw.
fn read_raw() -> bool {
    let mut buf = [0u8; 16];
    let fd = call(
        257,
        [
            -100isize as usize,
            c"/pfs-demo/x".as_ptr() as usize,
            0,
            0,
            0,
        ],
    );
    let got = call(0, [fd as usize, buf.as_mut_ptr() as usize, 16, 0, 0]);
    let closed = call(3, [fd as usize, 0, 0, 0, 0]);
    fd >= 0 && got == 6 && &buf[..6] == b"hello\n" && closed == 0
}

static SEEN: AtomicU64 = AtomicU64::new(0);
static BAD: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(_: i32) {
    if !read_raw() {
        BAD.fetch_add(1, Ordering::Relaxed);
    }
    SEEN.fetch_add(1, Ordering::Relaxed);
}

fn wait(pid: isize) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    assert_eq!(unsafe { waitpid(pid as i32, &mut status, 0) } as isize, pid);
    status
}

/// A raw thread with a stack of its own, as Go makes them: the child only sets a word and exits.
fn raw_thread() {
    let mut stack = vec![0u64; 4096];
    let word = AtomicU32::new(0);
    let top = stack.as_mut_ptr().wrapping_add(4000) as usize & !15;
    // CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM
    let flags = 0x50f00usize;
    let ret: isize;
    // SAFETY: the child touches only its stack and the word, and exits.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov dword ptr [{word}], 77",
            "mov eax, 60",
            "xor edi, edi",
            "syscall",
            "2:",
            word = in(reg) word.as_ptr(),
            inlateout("rax") 56usize => ret, inlateout("rdi") flags => _, in("rsi") top,
            in("rdx") 0, in("r10") 0, in("r8") 0, out("rcx") _, out("r11") _,
        );
    }
    assert!(ret > 0);
    while word.load(Ordering::Acquire) != 77 {
        std::thread::yield_now();
    }
    // Until the thread is off its stack.
    while call(234, [std::process::id() as usize, ret as usize, 0, 0, 0]) == 0 {
        std::thread::yield_now();
    }
}

const FLAGS: u64 = 0x8d5; // carry, parity, adjust, zero, sign, overflow

/// A served call leaves every register but rax, rcx and r11 alone.
fn registers() {
    let before: [[u64; 4]; 16] =
        std::array::from_fn(|i| std::array::from_fn(|j| 0x0101_0101 * (1 + i + 16 * j) as u64));
    let mut after = [[0u64; 4]; 16];
    let mut kept = [1usize, 2, 3, 4, 5, 6, 0, 0];
    let (path, mut flags) = (c"/pfs-demo/x".as_ptr() as usize, FLAGS);
    macro_rules! each {
        ($op:literal, $form:tt, $reg:literal) => {
            concat!(
                each!(@ $op, $form, $reg, 0), each!(@ $op, $form, $reg, 1),
                each!(@ $op, $form, $reg, 2), each!(@ $op, $form, $reg, 3),
                each!(@ $op, $form, $reg, 4), each!(@ $op, $form, $reg, 5),
                each!(@ $op, $form, $reg, 6), each!(@ $op, $form, $reg, 7),
                each!(@ $op, $form, $reg, 8), each!(@ $op, $form, $reg, 9),
                each!(@ $op, $form, $reg, 10), each!(@ $op, $form, $reg, 11),
                each!(@ $op, $form, $reg, 12), each!(@ $op, $form, $reg, 13),
                each!(@ $op, $form, $reg, 14), each!(@ $op, $form, $reg, 15),
            )
        };
        (@ $op:literal, load, $reg:literal, $n:literal) => {
            concat!($op, " ", $reg, $n, ", [r8 + 32 * ", $n, "]\n")
        };
        (@ $op:literal, store, $reg:literal, $n:literal) => {
            concat!($op, " [r9 + 32 * ", $n, "], ", $reg, $n, "\n")
        };
    }
    macro_rules! run {
        ($op:literal, $reg:literal) => {
            asm!(
                each!($op, load, $reg),
                "push {flags}", "popfq", "syscall", "pushfq", "pop {flags}",
                each!($op, store, $reg),
                "mov [r10], rdi", "mov [r10 + 8], rsi", "mov [r10 + 16], rdx",
                "mov [r10 + 24], r8", "mov [r10 + 32], r9",
                flags = inout(reg) flags,
                inlateout("rax") 257usize => kept[7], in("rdi") -100isize,
                in("rsi") path, in("rdx") 0, in("r10") kept.as_mut_ptr(),
                in("r8") before.as_ptr(), in("r9") after.as_mut_ptr(),
                out("rcx") _, out("r11") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
                out("xmm14") _, out("xmm15") _,
            )
        };
    }
    let wide = std::is_x86_feature_detected!("avx");
    // SAFETY: openat of a valid path; loads and stores stay within the arrays.
    unsafe {
        if wide {
            run!("vmovdqu", "ymm");
        } else {
            run!("movups", "xmm");
        }
    }
    call(3, [kept[7], 0, 0, 0, 0]);
    assert!((kept[7] as isize) >= 0, "opened");
    let expect = [
        -100isize as usize,
        path,
        0,
        before.as_ptr() as usize,
        after.as_ptr() as usize,
    ];
    assert_eq!(kept[..5], expect);
    assert_eq!(flags & FLAGS, FLAGS);
    let words = if wide { 4 } else { 2 };
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old[..words], new[..words]);
    }
}

fn main() {
    registers();
    assert!(read_raw(), "main thread");
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..200).all(|_| read_raw())))
        .collect();
    assert!(
        threads.into_iter().all(|thread| thread.join().unwrap()),
        "threads"
    );
    for nr in [57, 58] {
        let pid = call(nr, [0; 5]);
        if pid == 0 {
            call(231, [usize::from(!read_raw()), 0, 0, 0, 0]);
        }
        assert_eq!(wait(pid), 0, "raw fork or vfork, {nr}");
    }
    let pid = call(56, [0x4111, 0, 0, 0, 0]);
    if pid == 0 {
        call(231, [usize::from(!read_raw()), 0, 0, 0, 0]);
    }
    assert_eq!(wait(pid), 0, "raw clone with CLONE_VM | CLONE_VFORK");
    raw_thread();
    // A handler for SIGSYS, such as sandboxes and Go set, gets in nobody's way.
    // SAFETY: the handler is async-signal-safe; it is not called.
    unsafe { signal(31, handler as *const () as usize) };
    assert!(read_raw());
    // SAFETY: the handler is async-signal-safe.
    unsafe {
        signal(14, handler as *const () as usize);
        setitimer(0, &[0, 200, 0, 200], std::ptr::null_mut());
    }
    let start = std::time::Instant::now();
    while start.elapsed().as_millis() < 500 {
        assert!(read_raw());
        assert_eq!(std::fs::read("/pfs-demo/x").unwrap(), b"hello\n");
    }
    // SAFETY: stops the timer.
    unsafe { setitimer(0, &[0; 4], std::ptr::null_mut()) };
    assert!(SEEN.load(Ordering::Relaxed) > 20);
    assert_eq!(BAD.load(Ordering::Relaxed), 0, "handler");
    let out = std::process::Command::new("cat")
        .arg("/pfs-demo/x")
        .output()
        .unwrap();
    assert_eq!(out.stdout, b"hello\n", "{out:?}");
    println!("ok");
}
