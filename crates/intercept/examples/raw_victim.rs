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

fn main() {
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
