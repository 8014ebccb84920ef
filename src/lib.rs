//! `libpil4dfs.so`: serves file calls on DAOS containers in user space.
//!
//! ```text
//!  program / libc / ld.so           (syscall instructions rewritten by crate `intercept`)
//!        |  Call { nr, args }
//!        v
//!    dispatch --- table: one handler per system call (calls/<topic>.rs)
//!        |              |
//!        |              +-- route: is the path ours? -- mounts, cwd     is the fd ours? -- files
//!        |              +-- client::dfs: do it                            (placeholder descriptors)
//!        v
//!    Done(value | -errno)   Pass (kernel, unchanged)   PassThen (kernel, then look at the result)
//! ```
//!
//! `init` runs once from `.init_array`; with no mount configured nothing is rewritten at all. The
//! engine is attached at the first path or descriptor inside the mount. Contexts: every handler may
//! run in *normal* and *signal* context (the front end defers asynchronous signals while a handler
//! runs); those that a vfork child needs say so and write no table there.

mod abi;
mod above;
mod calls;
mod config;
mod cred;
mod cwd;
mod dispatch;
mod exec;
mod files;
mod handover;
mod init;
mod kernel;
mod libraries;
mod limits;
mod links;
mod magic;
mod mounts;
mod placeholder;
mod report;
mod route;
mod running;
mod say;
mod shadow;
mod user;
mod watch;

#[global_allocator]
static ALLOCATOR: intercept::HostAlloc = intercept::HostAlloc;
