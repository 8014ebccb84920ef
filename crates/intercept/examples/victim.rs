//! A program for the tests to run under `demo_preload`: each sub-command does one hard thing with
//! libc, prints `ok`, and behaves the same without interception if `/pfs-demo` exists.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Instant;

unsafe extern "C" {
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn openat(dir: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize;
    fn close(fd: c_int) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn fork() -> c_int;
    fn vfork() -> c_int;
    fn clone(
        f: extern "C" fn(*mut c_void) -> c_int,
        s: *mut c_void,
        fl: c_int,
        a: *mut c_void,
        ...
    ) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, flags: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
    fn getppid() -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn sigaction(number: c_int, new: *const [usize; 19], old: *mut [usize; 19]) -> c_int;
    fn sigprocmask(how: c_int, new: *const [u64; 16], old: *mut [u64; 16]) -> c_int;
    fn sigaltstack(new: *const [usize; 3], old: *mut [usize; 3]) -> c_int;
    fn raise(number: c_int) -> c_int;
    fn setitimer(which: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    fn pthread_create(
        t: *mut usize,
        attr: *const [u64; 8],
        f: extern "C" fn(*mut c_void) -> *mut c_void,
        arg: *mut c_void,
    ) -> c_int;
    fn pthread_join(t: usize, value: *mut *mut c_void) -> c_int;
    fn pthread_cancel(t: usize) -> c_int;
    fn pthread_attr_init(attr: *mut [u64; 8]) -> c_int;
    fn pthread_attr_setstacksize(attr: *mut [u64; 8], size: usize) -> c_int;
    fn pipe(fds: *mut [c_int; 2]) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int;
    fn stat(path: *const c_char, buf: *mut [u64; 18]) -> c_int;
    fn syscall(number: i64, ...) -> i64;
    fn __errno_location() -> *mut c_int;
}

const O_RDWR: c_int = 2;
const O_CREAT: c_int = 0o100;
const EFAULT: c_int = 14;
const EIO: c_int = 5;

fn errno() -> c_int {
    // SAFETY: libc's own location of the calling thread.
    unsafe { *__errno_location() }
}

fn read_x() -> String {
    std::fs::read_to_string("/pfs-demo/x").unwrap()
}

static SEEN: AtomicU64 = AtomicU64::new(0);
static BAD: AtomicU64 = AtomicU64::new(0);

extern "C" fn reading_handler(_: c_int) {
    let mut buf = [0u8; 16];
    // SAFETY: async-signal-safe calls with valid arguments.
    unsafe {
        let kept = errno();
        let fd = open(c"/pfs-demo/x".as_ptr(), 0);
        let got = read(fd, buf.as_mut_ptr().cast(), buf.len());
        let wild = open(8 as *const c_char, 0);
        if got != 6 || &buf[..6] != b"hello\n" || close(fd) != 0 || wild != -1 {
            BAD.fetch_add(1, Ordering::Relaxed);
        }
        *__errno_location() = kept;
    }
    SEEN.fetch_add(1, Ordering::Relaxed);
}

/// SIGALRM at up to 10 kHz, whose handler opens and reads, during reads in several threads.
fn storm() {
    // SAFETY: the handler is async-signal-safe.
    unsafe {
        signal(14, reading_handler as *const () as usize);
        setitimer(0, &[0, 100, 0, 100], std::ptr::null_mut());
    }
    let until = Instant::now();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || {
                while until.elapsed().as_millis() < 700 {
                    assert_eq!(read_x(), "hello\n");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // SAFETY: stops the timer.
    unsafe { setitimer(0, &[0; 4], std::ptr::null_mut()) };
    assert!(SEEN.load(Ordering::Relaxed) > 50);
    assert_eq!(BAD.load(Ordering::Relaxed), 0);
}

/// As `storm`, with the handler on an alternate stack.
fn altstack() {
    let mut stack = vec![0u8; 64 * 1024];
    let mut action = [0usize; 19];
    action[0] = reading_handler as *const () as usize;
    action[17] = 0x1800_0000; // SA_ONSTACK | SA_RESTART
    // glibc's struct: handler, 128 bytes of mask, flags.
    // SAFETY: the stack outlives the signals.
    unsafe {
        assert_eq!(
            sigaltstack(&[stack.as_mut_ptr() as usize, 0, stack.len()], &mut [0; 3]),
            0
        );
        assert_eq!(sigaction(14, &action, std::ptr::null_mut()), 0);
        let mut second = action;
        second[0] = reading_handler as *const () as usize;
        assert_eq!(sigaction(26, &second, std::ptr::null_mut()), 0);
        setitimer(0, &[0, 100, 0, 100], std::ptr::null_mut());
        setitimer(1, &[0, 100, 0, 100], std::ptr::null_mut());
    }
    let start = Instant::now();
    while start.elapsed().as_millis() < 700 {
        assert_eq!(read_x(), "hello\n");
    }
    // SAFETY: stops the timers.
    unsafe {
        setitimer(0, &[0; 4], std::ptr::null_mut());
        setitimer(1, &[0; 4], std::ptr::null_mut());
    }
    assert!(SEEN.load(Ordering::Relaxed) > 50);
    assert_eq!(BAD.load(Ordering::Relaxed), 0);
}

extern "C" fn tiny(_: *mut c_void) -> *mut c_void {
    reading_handler(0);
    std::ptr::null_mut()
}

/// Threads with the smallest stack glibc allows, many after each other.
fn tiny_stacks() {
    for _ in 0..200 {
        let mut threads = [0usize; 4];
        // SAFETY: attributes are initialised; threads are joined.
        unsafe {
            let mut attr = [0u64; 8];
            pthread_attr_init(&mut attr);
            assert_eq!(pthread_attr_setstacksize(&mut attr, 16384), 0);
            for thread in &mut threads {
                assert_eq!(pthread_create(thread, &attr, tiny, std::ptr::null_mut()), 0);
            }
            for thread in threads {
                pthread_join(thread, std::ptr::null_mut());
            }
        }
    }
    assert_eq!(
        (SEEN.load(Ordering::Relaxed), BAD.load(Ordering::Relaxed)),
        (800, 0)
    );
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(
        maps.lines().count() < 150,
        "hook stacks of ended threads are reused\n{maps}"
    );
}

fn wait(pid: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    assert_eq!(unsafe { waitpid(pid, &mut status, 0) }, pid);
    status
}

/// A vfork child moves and closes descriptors; the parent's must not change.
fn vfork_child() {
    // SAFETY: the child makes system calls only and leaves with _exit.
    unsafe {
        let fd = open(c"/pfs-demo/x".as_ptr(), 0);
        let other = open(c"/pfs-demo/y".as_ptr(), O_RDWR | O_CREAT, 0o600);
        for _ in 0..100 {
            let pid = vfork();
            if pid == 0 {
                dup2(other, fd);
                close(other);
                let own = open(c"/pfs-demo/x".as_ptr(), 0);
                let mut byte = 0u8;
                let good = read(own, (&raw mut byte).cast(), 1) == 1 && byte == b'h';
                _exit(if good { 7 } else { 8 });
            }
            assert_eq!(wait(pid), 7 << 8);
        }
        let mut buf = [0u8; 6];
        assert_eq!(read(fd, buf.as_mut_ptr().cast(), 6), 6);
        assert_eq!(&buf, b"hello\n");
        assert_eq!(read(other, buf.as_mut_ptr().cast(), 6), 0);
        // The table still knows the first as a demo file: a wild pointer is refused by the demo.
        let again = open(c"/pfs-demo/x".as_ptr(), 0);
        assert_eq!(read(again, 8 as *mut c_void, 6), -1);
        assert_eq!(errno(), EFAULT);
    }
}

extern "C" fn clone_child(_: *mut c_void) -> c_int {
    c_int::from(read_x() != "hello\n")
}

/// fork, nested vfork in a fork, clone with its own stack, spawn.
fn processes() {
    // SAFETY: children end by _exit or return.
    unsafe {
        let pid = fork();
        if pid == 0 {
            let inner = vfork();
            if inner == 0 {
                _exit(3);
            }
            let good = wait(inner) == 3 << 8 && read_x() == "hello\n";
            _exit(if good { 5 } else { 6 });
        }
        assert_eq!(wait(pid), 5 << 8);
        let mut stack = vec![0u64; 64 * 1024];
        let top = stack.as_mut_ptr().add(stack.len() - 16);
        let pid = clone(clone_child, top.cast(), 17, std::ptr::null_mut());
        assert_eq!(wait(pid), 0);
        let raw = syscall(57) as c_int;
        if raw == 0 {
            syscall(231, i64::from(c_int::from(read_x() != "hello\n")));
        }
        assert_eq!(wait(raw), 0);
    }
    // Executed by a vfork child from within a hook, which thus never ends.
    std::fs::copy("/bin/true", "/pfs-demo/tool").unwrap();
    for _ in 0..3 {
        let tool = std::process::Command::new("/pfs-demo/tool")
            .status()
            .unwrap();
        assert!(tool.success());
        assert_eq!(read_x(), "hello\n");
    }
    for _ in 0..20 {
        let out = std::process::Command::new("cat")
            .arg("/pfs-demo/x")
            .output()
            .unwrap();
        assert_eq!(out.stdout, b"hello\n");
    }
}

/// 8 threads that open, read, spawn and fork all at once.
fn threads() {
    let threads: Vec<_> = (0..8)
        .map(|i| {
            std::thread::spawn(move || {
                for round in 0..25 {
                    let path = format!("/pfs-demo/thread-{i}");
                    let mut file = std::fs::File::create(&path).unwrap();
                    write!(file, "{round}").unwrap();
                    drop(file);
                    assert_eq!(std::fs::read_to_string(&path).unwrap(), round.to_string());
                    match round % 5 {
                        0 => {
                            let cat = std::process::Command::new("cat").arg(&path).output();
                            assert_eq!(cat.unwrap().stdout, round.to_string().as_bytes());
                        }
                        // SAFETY: the child makes async-signal-safe calls only.
                        1 => unsafe {
                            let pid = fork();
                            if pid == 0 {
                                reading_handler(0);
                                _exit(BAD.load(Ordering::Relaxed) as c_int);
                            }
                            assert_eq!(wait(pid), 0);
                        },
                        _ => {}
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Bad pointers: EFAULT, in paths, buffers and signal calls.
fn wild() {
    let expect = |what: &str, got: i64| {
        assert_eq!((got, errno()), (-1, EFAULT), "{what}");
    };
    // SAFETY: the kernel, or who acts for it, must refuse these.
    unsafe {
        expect("open", open(8 as *const c_char, 0).into());
        expect("open 0", open(std::ptr::null(), 0).into());
        expect(
            "stat",
            stat(c"/pfs-demo/x".as_ptr(), 16 as *mut [u64; 18]).into(),
        );
        let file = std::fs::File::open("/pfs-demo/x").unwrap();
        expect("read", read(file.as_raw_fd(), 8 as *mut c_void, 6) as i64);
        let file = std::fs::File::open("/pfs-demo/x").unwrap();
        expect(
            "read high",
            read(file.as_raw_fd(), (1u64 << 63) as *mut c_void, 6) as i64,
        );
        drop(file);
        expect("rt_sigaction", syscall(13, 10, 8, 0, 8));
        expect("rt_sigaction old", syscall(13, 10, 0, 8, 8));
        expect("rt_sigprocmask", syscall(14, 0, 8, 0, 8));
        let long = CString::new(format!("/pfs-demo/{}", "a/".repeat(3000))).unwrap();
        assert_eq!(open(long.as_ptr(), 0), -1);
        assert_eq!(errno(), 36);
    }
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(number: c_int) {
    HANDLED.fetch_add(number, Ordering::Relaxed);
}

/// The program's own view of signals is undisturbed.
fn signals() {
    let (mut old, mut new) = ([0usize; 19], [0usize; 19]);
    new[0] = count as *const () as usize;
    new[1] = 1 << 10; // mask: SIGSEGV
    new[17] = 0x8000_0000; // SA_RESETHAND
    // SAFETY: actions and masks are live and of libc's layout.
    unsafe {
        assert_eq!(sigaction(10, &new, &mut old), 0);
        assert_eq!(old[0], 0);
        assert_eq!(sigaction(10, std::ptr::null(), &mut old), 0);
        assert_eq!((old[0], old[1]), (new[0], 1 << 10));
        assert_eq!(old[17] & 0xf800_0000, 0x8000_0000);
        raise(10);
        assert_eq!(HANDLED.load(Ordering::Relaxed), 10);
        sigaction(10, std::ptr::null(), &mut old);
        assert_eq!(old[0], 0, "SA_RESETHAND");
        let (mut set, mut was) = ([0u64; 16], [0u64; 16]);
        set[0] = 1 << 10 | 1 << 11;
        assert_eq!(sigprocmask(0, &set, &mut was), 0);
        assert_eq!(was[0], 0);
        assert_eq!(sigprocmask(0, std::ptr::null(), &mut was), 0);
        assert_eq!(was[0], set[0], "a blocked SIGSEGV is reported as such");
        // Still survivable.
        assert_eq!(open(8 as *const c_char, 0), -1);
        assert_eq!(errno(), EFAULT);
        assert_eq!(sigprocmask(2, &[0; 16], &mut was), 0);
        // The program's own SIGSEGV handler gets the program's own faults.
        new[17] = 0;
        assert_eq!(sigaction(11, &new, &mut old), 0);
        raise(11);
        assert_eq!(HANDLED.load(Ordering::Relaxed), 21);
        assert_eq!(open(8 as *const c_char, 0), -1);
        assert_eq!(HANDLED.load(Ordering::Relaxed), 21);
        let pid = fork();
        if pid == 0 {
            signal(11, 0);
            std::ptr::read_volatile(8 as *const u8);
            _exit(0);
        }
        assert_eq!(wait(pid) & 0x7f, 11, "an unhandled fault still kills");
    }
}

extern "C" fn blocked(fd: *mut c_void) -> *mut c_void {
    let mut byte = 0u8;
    loop {
        // SAFETY: blocks until cancelled.
        unsafe { read(fd as usize as c_int, (&raw mut byte).cast(), 1) };
    }
}

/// A thread blocked in read is cancelled.
fn cancel() {
    for _ in 0..50 {
        let (mut fds, mut thread) = ([0; 2], 0);
        let mut value = std::ptr::null_mut();
        // SAFETY: the thread is cancelled, then joined.
        unsafe {
            assert_eq!(pipe(&mut fds), 0);
            let arg = fds[0] as usize as *mut c_void;
            assert_eq!(
                pthread_create(&mut thread, std::ptr::null(), blocked, arg),
                0
            );
            std::thread::yield_now();
            assert_eq!(pthread_cancel(thread), 0);
            assert_eq!(pthread_join(thread, &mut value), 0);
            assert_eq!(value as isize, -1, "PTHREAD_CANCELED");
            close(fds[0]);
            close(fds[1]);
        }
    }
}

/// Denies itself writable-then-executable memory, then runs itself again.
fn mdwe() {
    let own = CString::new(std::env::current_exe().unwrap().to_str().unwrap()).unwrap();
    // SAFETY: arguments are terminated lists.
    unsafe {
        if prctl(65, 1usize, 0usize, 0usize, 0usize) != 0 {
            println!("ok (no PR_SET_MDWE here)");
            std::process::exit(0);
        }
        execv(
            own.as_ptr(),
            [own.as_ptr(), c"wild".as_ptr(), std::ptr::null()].as_ptr(),
        );
    }
    panic!("exec failed");
}

/// A bug in the dispatcher is EIO, once and again, in threads too.
fn bug() {
    for path in [c"/pfs-demo/panic", c"/pfs-demo/fault"] {
        for _ in 0..3 {
            // SAFETY: a valid path.
            assert_eq!(unsafe { openat(-100, path.as_ptr(), 0) }, -1);
            assert_eq!(errno(), EIO);
            std::thread::spawn(move || {
                // SAFETY: as above.
                assert_eq!(unsafe { open(path.as_ptr(), 0) }, -1);
                assert_eq!(errno(), EIO);
            })
            .join()
            .unwrap();
        }
    }
    assert_eq!(read_x(), "hello\n");
}

fn best_ns(rounds: u32, mut body: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..rounds {
            body();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    best
}

/// Nanoseconds per call, one line each. The demo file only if there is one.
fn bench() {
    let mut buf = [0u8; 1];
    let mut zero = std::fs::File::open("/proc/self/comm").unwrap();
    let _ = zero.read(&mut [0; 64]).unwrap();
    let at = buf.as_mut_ptr().cast();
    let foreign = zero.as_raw_fd();
    let mut info = [0u64; 18];
    // SAFETY: valid arguments throughout.
    unsafe {
        println!(
            "getppid            {:8.1}",
            best_ns(1_000_000, || {
                getppid();
            })
        );
        println!(
            "read foreign, 0 B  {:8.1}",
            best_ns(1_000_000, || {
                read(foreign, at, 0);
            })
        );
        println!(
            "stat foreign       {:8.1}",
            best_ns(300_000, || {
                stat(c"/etc/hostname".as_ptr(), &mut info);
            })
        );
        println!(
            "open+close foreign {:8.1}",
            best_ns(300_000, || {
                close(open(c"/etc/hostname".as_ptr(), 0));
            })
        );
        println!(
            "read(-1)           {:8.1}",
            best_ns(1_000_000, || {
                read(-1, at, 0);
            })
        );
        let fd = open(c"/pfs-demo/x".as_ptr(), 0);
        if fd >= 0 {
            println!(
                "read demo file     {:8.1}",
                best_ns(1_000_000, || {
                    read(fd, at, 1);
                })
            );
        }
    }
}

/// Costs of the library's own tools, nanoseconds per call.
fn bench_tools() {
    use sys::{clock, uaccess};
    uaccess::install().unwrap();
    for len in [16usize, 256, 4096, 65_536, 1 << 20] {
        let (source, mut target) = (vec![1u8; len], vec![2u8; len]);
        let (from, to) = (source.as_ptr() as usize, target.as_mut_ptr() as usize);
        let rounds = (50_000_000 / (len + 100)) as u32;
        // SAFETY: both vectors have the length and are not used meanwhile.
        let guarded = best_ns(rounds, || unsafe { uaccess::copy(to, from, len).unwrap() });
        // SAFETY: as above.
        let cold = best_ns(rounds, || unsafe {
            uaccess::copy_nt(to, from, len).unwrap()
        });
        let plain = best_ns(rounds, || {
            target.copy_from_slice(std::hint::black_box(&source));
            std::hint::black_box(&target);
        });
        println!("{len:8} B: copy {guarded:9.1}  copy_nt {cold:9.1}  memcpy {plain:9.1}");
    }
    let text = c"/pfs-demo/a/path/of/usual/length/in/a/tree";
    let mut buf = [0u8; 256];
    let path = best_ns(1_000_000, || {
        uaccess::read_cstr(text.as_ptr() as usize, &mut buf).unwrap();
    });
    let fault = best_ns(20_000, || assert!(uaccess::load::<u64>(8).is_err()));
    println!(
        "read_cstr of {} B {path:.1}, a fault {fault:.1}",
        text.count_bytes()
    );
    let exact = best_ns(1_000_000, || {
        std::hint::black_box(clock::realtime());
    });
    let coarse = best_ns(1_000_000, || {
        std::hint::black_box(clock::realtime_coarse());
    });
    println!("clock: realtime {exact:.1}, coarse {coarse:.1}");
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    match what.as_str() {
        "storm" => storm(),
        "altstack" => altstack(),
        "tiny-stacks" => tiny_stacks(),
        "vfork" => vfork_child(),
        "processes" => processes(),
        "threads" => threads(),
        "wild" => wild(),
        "signals" => signals(),
        "cancel" => cancel(),
        "mdwe" => mdwe(),
        "bug" => bug(),
        "bench" => return bench(),
        "bench-tools" => return bench_tools(),
        other => panic!("no such test: {other}"),
    }
    println!("ok");
}
