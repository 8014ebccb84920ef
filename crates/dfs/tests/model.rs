//! Random sequences of operations: a container answers as a kernel file system and as a plain tree
//! in memory do.

mod common;

use common::ops::{Answer, Op, USERS, User, caller, op};
use common::{Container, kernel, memory, ours};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use sys::Errno;

/// What the kernel answers, in a fresh directory; `None` without the privilege to ask it as
/// others.
fn kernels(calls: &[(User, Op)]) -> Option<Vec<Answer>> {
    let tree = kernel::Tree::new();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            tree.enter().ok()?;
            Some(
                calls
                    .iter()
                    .map(|(user, call)| kernel::run(*user, call))
                    .collect(),
            )
        });
        asked.join().expect("kernel side")
    })
}

/// A call with a name that is too long may have two errors; which comes first is not compared.
fn too_long(call: &Op) -> bool {
    let long = |path: &String| path.split('/').any(|name| name.len() > 255);
    match call {
        Op::Rename { from, to, .. } => long(from) || long(to),
        Op::Create { path, .. } | Op::Unlink { path } => long(path) && path.ends_with('/'),
        _ => false,
    }
}

/// Runs the same calls on both and compares every answer.
fn same_as_kernel(calls: &[(User, Op)]) -> Result<(), TestCaseError> {
    let open = (
        USERS[0],
        Op::Chmod {
            path: ".".into(),
            mode: 0o777,
        },
    );
    let calls: Vec<_> = [open].iter().chain(calls).cloned().collect();
    let Some(theirs) = kernels(&calls) else {
        return Ok(());
    };
    let container = Container::new();
    for (step, ((user, call), theirs)) in calls.iter().zip(theirs).enumerate() {
        let ours = ours::run(&container.dfs, *user, call);
        if let (Answer::Failed(_), Answer::Failed(theirs)) = (&ours, &theirs)
            && (too_long(call) || matches!(call, Op::Create { .. }) && *theirs == Errno::EISDIR)
        {
            // The latter: creating through a link that ends in a slash.
            continue;
        }
        prop_assert_eq!(ours, theirs, "step {} by {}: {:?}", step, user.uid, call);
    }
    Ok(())
}

/// `cases` unless the environment says otherwise.
fn config(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: wanted.and_then(|n| n.parse().ok()).unwrap_or(cases),
        max_shrink_iters: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn every_answer_is_the_kernels() {
    if !kernel::protects_hardlinks() {
        return;
    }
    let sequences = prop::collection::vec((caller(), op()), 1..120);
    let mut runner = TestRunner::new(config(200));
    if let Err(failure) = runner.run(&sequences, |calls| same_as_kernel(&calls)) {
        panic!("{failure}");
    }
}

/// Runs the same calls on a container and on a tree in memory, then checks the container.
fn same_as_memory(calls: &[Op]) -> Result<(), TestCaseError> {
    let container = Container::new();
    let mut memory = memory::Memory::new();
    for (step, call) in calls.iter().enumerate() {
        let theirs = memory.run(call);
        let ours = ours::run(&container.dfs, USERS[0], call);
        if let (Answer::Failed(_), Answer::Failed(_)) = (&ours, &theirs)
            && too_long(call)
        {
            continue;
        }
        prop_assert_eq!(ours, theirs, "step {}: {:?}", step, call);
    }
    let checked = container.dfs.check().expect("check");
    prop_assert_eq!(checked.problems, []);
    prop_assert_eq!(checked.orphans, 0);
    Ok(())
}

#[test]
fn every_answer_is_that_of_a_plain_tree() {
    let sequences = prop::collection::vec(op(), 1..200);
    let mut runner = TestRunner::new(config(200));
    if let Err(failure) = runner.run(&sequences, |calls| same_as_memory(&calls)) {
        panic!("{failure}");
    }
}
