use super::*;
use crate::layout::{MAGIC, header};
use daos_types::{Ident, Label, PoolId};
use proptest::prelude::*;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Errno;

struct Home {
    dir: tempfile::TempDir,
    root: SystemRoot,
}

fn home() -> Home {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("root");
    let root = SystemRoot::locate(Some(path.as_os_str().as_encoded_bytes())).expect("absolute");
    Home { dir, root }
}

fn spec(label: &str, ranks: u16) -> PoolSpec {
    PoolSpec {
        label: Label::new(label).expect("label"),
        size_bytes: u64::from(ranks) * (2 << 20),
        ranks,
        targets_per_rank: 4,
        rank_paths: Vec::new(),
        reserve: false,
    }
}

fn create(home: &Home, spec: &PoolSpec) -> Result<PoolInfo, SystemError> {
    home.root.create_pool(spec, &mut |_, _| {})
}

fn ident(text: &str) -> Ident {
    text.parse().expect("identifier")
}

/// Every file and directory below a directory, as sorted text.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut queue = vec![dir.to_owned()];
    while let Some(next) = queue.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            found.push(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                queue.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn small_texts_have_the_pool_s_checksum() {
    assert_eq!(super::checksum(b"123456789"), crc32fast::hash(b"123456789"));
}

#[test]
fn a_pool_is_created_found_listed_and_destroyed() {
    let home = home();
    assert_eq!(home.root.list_pools(), Ok(Vec::new()));
    let made = create(&home, &spec("tank", 20)).expect("created");
    assert_eq!(
        (made.ranks.len(), made.targets(), made.map_version),
        (20, 80, 1)
    );
    assert!(
        made.ranks
            .iter()
            .all(|rank| rank.present && rank.state == RankState::UpIn)
    );
    assert_eq!(home.root.find_pool(&ident("tank")).as_ref(), Ok(&made));
    assert_eq!(
        home.root.find_pool(&ident(&made.uuid.to_string())).as_ref(),
        Ok(&made)
    );
    create(&home, &spec("alpha", 1)).expect("created");
    let labels: Vec<_> = home
        .root
        .list_pools()
        .expect("list")
        .into_iter()
        .flatten()
        .collect();
    let labels: Vec<_> = labels.iter().map(|pool| pool.label.as_str()).collect();
    assert_eq!(labels, ["alpha", "tank"]);
    home.root
        .destroy_pool(&ident("tank"), false)
        .expect("destroyed");
    let gone = home.root.find_pool(&ident("tank"));
    assert!(matches!(gone, Err(SystemError::NoPool { .. })), "{gone:?}");
    let rest = tree(home.root.path());
    assert!(
        !rest
            .iter()
            .any(|path| path.contains(&made.uuid.to_string())),
        "{rest:?}"
    );
}

#[test]
fn ranks_spread_over_the_given_paths_and_leave_nothing_behind() {
    let home = home();
    let paths: Vec<PathBuf> = ["a", "b"]
        .iter()
        .map(|name| home.dir.path().join(name))
        .collect();
    for path in &paths {
        std::fs::create_dir(path).expect("directory");
    }
    let spec = PoolSpec {
        rank_paths: paths.clone(),
        reserve: true,
        ..spec("tank", 3)
    };
    let mut last = (0, 0);
    let pool = home
        .root
        .create_pool(&spec, &mut |done, total| last = (done, total));
    let pool = pool.expect("created");
    assert_eq!(last, (3 * (2 << 20), 3 * (2 << 20)));
    for (rank, base) in pool.ranks.iter().zip([&paths[0], &paths[1], &paths[0]]) {
        assert!(rank.path.starts_with(base), "{rank:?}");
        let data = std::fs::metadata(rank.path.join(crate::media::DATA_FILE)).expect("reserved");
        assert_eq!(data.len(), 2 << 20);
    }
    home.root
        .destroy_pool(&ident("tank"), false)
        .expect("destroyed");
    for path in &paths {
        assert_eq!(tree(path), Vec::<String>::new());
    }
}

#[test]
fn bad_specifications_are_refused_and_change_nothing() {
    let home = home();
    create(&home, &spec("tank", 2)).expect("created");
    let before = tree(home.dir.path());
    let refuse = |change: &dyn Fn(&mut PoolSpec)| {
        let mut bad = spec("other", 2);
        change(&mut bad);
        let error = create(&home, &bad).expect_err("refused");
        assert_eq!(tree(home.dir.path()), before, "{error}");
        error
    };
    assert_eq!(refuse(&|s| s.size_bytes = 0), SystemError::ZeroSize);
    assert!(matches!(
        refuse(&|s| s.size_bytes = 1 << 60),
        SystemError::BeyondDevice { .. }
    ));
    assert!(matches!(
        refuse(&|s| s.size_bytes = 1 << 10),
        SystemError::TooSmall { .. }
    ));
    assert!(matches!(
        refuse(&|s| s.ranks = 0),
        SystemError::OutOfRange { what: "ranks", .. }
    ));
    assert!(matches!(
        refuse(&|s| s.ranks = 257),
        SystemError::OutOfRange { what: "ranks", .. }
    ));
    assert!(matches!(
        refuse(&|s| s.targets_per_rank = 0),
        SystemError::OutOfRange { .. }
    ));
    let taken = refuse(&|s| s.label = Label::new("tank").expect("label"));
    assert_eq!(taken, SystemError::LabelTaken("tank".to_owned()));
    let missing = refuse(&|s| s.rank_paths = vec![PathBuf::from("/no/such/dir")]);
    assert!(
        matches!(
            missing,
            SystemError::Io {
                errno: Errno::ENOENT,
                ..
            }
        ),
        "{missing}"
    );
    let relative = refuse(&|s| s.rank_paths = vec![PathBuf::from("here")]);
    assert!(
        matches!(
            relative,
            SystemError::Io {
                errno: Errno::EINVAL,
                ..
            }
        ),
        "{relative}"
    );
    let beyond = refuse(&|s| s.size_bytes = 1 << 60).to_string();
    assert!(beyond.contains(&(1_u64 << 60).to_string()), "{beyond}");
}

#[test]
fn roots_are_absolute_private_and_our_own() {
    let relative = SystemRoot::locate(Some(b"some/where"));
    assert!(matches!(relative, Err(SystemError::RelativeRoot(_))));
    let uid = rustix::process::geteuid().as_raw();
    let default = SystemRoot::locate(None).expect("default");
    assert_eq!(default.path(), Path::new(&format!("/var/tmp/daos-{uid}")));
    assert_eq!(SystemRoot::locate(Some(b"")), Ok(default));

    let home = home();
    std::fs::create_dir(home.root.path()).expect("directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(home.root.path(), open).expect("chmod");
    let refused = create(&home, &spec("tank", 1));
    assert!(
        matches!(refused, Err(SystemError::OpenToOthers(_))),
        "{refused:?}"
    );
    std::fs::remove_dir(home.root.path()).expect("removed");
    std::os::unix::fs::symlink("/tmp", home.root.path()).expect("link");
    let refused = create(&home, &spec("tank", 1));
    assert!(matches!(
        refused,
        Err(SystemError::Io {
            errno: Errno::ELOOP | Errno::ENOTDIR,
            ..
        })
    ));
    if uid == 0 {
        let foreign = home.dir.path().join("foreign");
        std::fs::create_dir(&foreign).expect("directory");
        std::os::unix::fs::chown(&foreign, Some(12345), None).expect("chown");
        let root = SystemRoot::locate(Some(foreign.as_os_str().as_encoded_bytes())).expect("root");
        let refused = root.create_pool(&spec("tank", 1), &mut |_, _| {});
        assert!(matches!(
            refused,
            Err(SystemError::ForeignOwner { owner: 12345, .. })
        ));
    }
}

#[test]
fn network_file_systems_are_known_by_name() {
    use super::root::network_name;
    assert_eq!(network_name(0x6969), Some("NFS"));
    assert_eq!(network_name(0x0BD0_0BD0), Some("Lustre"));
    assert_eq!(network_name(0x6573_5546), Some("FUSE"));
    for local in [0xEF53, 0x5846_5342, 0x0102_1994, 0x9123_683E, 0x794C_7630] {
        assert_eq!(network_name(local), None, "{local:#x}");
    }
}

#[test]
fn a_majority_of_maps_opens_the_pool_and_less_does_not() {
    let home = home();
    let pool = create(&home, &spec("tank", 3)).expect("created");
    std::fs::remove_dir_all(&pool.ranks[1].path).expect("removed");
    let found = home.root.find_pool(&ident("tank")).expect("two of three");
    let present: Vec<bool> = found.ranks.iter().map(|rank| rank.present).collect();
    assert_eq!(present, [true, false, true]);
    std::fs::write(pool.ranks[2].path.join(MAP_NAME), b"garbage").expect("written");
    let error = home
        .root
        .find_pool(&ident("tank"))
        .expect_err("one of three");
    assert!(
        matches!(
            error,
            SystemError::NoMajority {
                found: 1,
                needed: 2,
                ..
            }
        ),
        "{error}"
    );
    home.root
        .destroy_pool(&ident("tank"), false)
        .expect("a damaged pool can be destroyed");

    let pool = create(&home, &spec("pair", 2)).expect("created");
    std::fs::remove_dir_all(&pool.ranks[0].path).expect("removed");
    home.root
        .find_pool(&ident("pair"))
        .expect("one of two and the registry");
    let pool = create(&home, &spec("lost", 3)).expect("created");
    std::fs::remove_file(pool.dir.join(MAP_NAME)).expect("removed");
    home.root
        .find_pool(&ident("lost"))
        .expect("found without the registry's copy");
}

#[test]
fn the_newest_map_wins_and_newer_formats_are_refused() {
    let home = home();
    let pool = create(&home, &spec("tank", 3)).expect("created");
    let old = std::fs::read(pool.ranks[0].path.join(MAP_NAME)).expect("read");
    let changed = pool
        .update_map(&mut |map| map.ranks[1].state = RankState::Down)
        .expect("stored");
    assert_eq!((changed.map_version, changed.disabled_targets()), (2, 4));
    std::fs::write(pool.ranks[0].path.join(MAP_NAME), &old).expect("written");
    std::fs::write(pool.dir.join(MAP_NAME), &old).expect("written");
    let found = home.root.find_pool(&ident("tank")).expect("found");
    assert_eq!(
        (found.map_version, found.ranks[1].state),
        (2, RankState::Down)
    );

    let text = String::from_utf8(old).expect("text");
    let newer = text.replace("DAOS-EMBEDDED-POOL 2", "DAOS-EMBEDDED-POOL 7");
    std::fs::write(pool.ranks[2].path.join(MAP_NAME), newer).expect("written");
    let error = home.root.find_pool(&ident("tank")).expect_err("newer");
    assert!(
        matches!(
            error,
            SystemError::NewerFormat {
                found: 7,
                known: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn maps_with_full_paths_are_read_and_written_anew() {
    let home = home();
    let pool = create(&home, &spec("tank", 3)).expect("created");
    let places = pool.ranks.iter().map(|rank| rank.path.join(MAP_NAME));
    for place in places.chain([pool.dir.join(MAP_NAME)]) {
        let text = std::fs::read_to_string(&place).expect("map");
        let (body, _) = text.split_once("crc32").expect("checksum");
        let mut older = body.replace("POOL 2", "POOL 1");
        for rank in 0..3 {
            let full = format!("rank {rank} up_in {}/rank", pool.dir.display());
            older = older.replace(&format!("rank {rank} up_in rank"), &full);
        }
        let sum = checksum(older.as_bytes());
        std::fs::write(&place, format!("{older}crc32 {sum:08x}\n")).expect("written");
    }
    assert_eq!(home.root.find_pool(&ident("tank")).as_ref(), Ok(&pool));
    // Elsewhere its ranks are those beside it.
    let moved = home.dir.path().join("moved");
    std::fs::rename(home.root.path(), &moved).expect("moved");
    let root = SystemRoot::locate(Some(moved.as_os_str().as_encoded_bytes())).expect("root");
    let found = root.find_pool(&ident("tank")).expect("found");
    assert!(
        found
            .ranks
            .iter()
            .all(|rank| rank.present && rank.path.starts_with(&moved))
    );
    let changed = found.update_map(&mut |_| {}).expect("stored");
    assert_eq!(changed.map_version, 2);
    let text = std::fs::read_to_string(found.ranks[0].path.join(MAP_NAME)).expect("map");
    assert!(text.starts_with("DAOS-EMBEDDED-POOL 2"), "{text}");
    assert!(text.contains("rank 0 up_in rank00\n"), "{text}");
}

#[test]
fn places_of_ranks_lead_nowhere_else() {
    let uuid = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
    let read = |place: &str| {
        let body = format!(
            "DAOS-EMBEDDED-POOL 2\nuuid {uuid}\nlabel l\nversion 1\nsize 1\ncreated 5\nreserved 0\n\
             targets_per_rank 4\nrank 0 up_in {place}\n"
        );
        let sum = checksum(body.as_bytes());
        PoolMap::decode(
            format!("{body}crc32 {sum:08x}\n").as_bytes(),
            Path::new("x"),
        )
        .is_ok()
    };
    assert!(read("rank00") && read("/elsewhere/rank00"));
    for place in ["", ".", "..", "../rank00", "rank00/..", "rank00/x", "other"] {
        assert!(!read(place), "{place:?}");
    }
}

#[test]
fn a_map_of_another_pool_does_not_count() {
    let home = home();
    let one = create(&home, &spec("one", 3)).expect("created");
    let two = create(&home, &spec("two", 3)).expect("created");
    for rank in 0..2 {
        let from = two.ranks[rank].path.join(MAP_NAME);
        std::fs::copy(from, one.ranks[rank].path.join(MAP_NAME)).expect("copied");
    }
    let error = home.root.find_pool(&ident("one")).expect_err("refused");
    assert!(
        matches!(error, SystemError::NoMajority { found: 1, .. }),
        "{error}"
    );
}

#[test]
fn two_creations_of_one_label_make_one_pool() {
    let home = home();
    for round in 0..5 {
        let label = format!("race{round}");
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let home = &home;
            let label = &label;
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(move || create(home, &spec(label, 2))))
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        });
        assert_eq!(
            outcomes.iter().filter(|o| o.is_ok()).count(),
            1,
            "{outcomes:?}"
        );
        for outcome in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(outcome, SystemError::LabelTaken(label.clone()));
        }
    }
    assert_eq!(home.root.list_pools().expect("list").len(), 5);
    assert_eq!(
        std::fs::read_dir(home.root.path().join("pools"))
            .expect("pools")
            .count(),
        5
    );
}

#[test]
fn leftovers_of_killed_commands_are_cleared_and_their_labels_free() {
    let home = home();
    let base = home.dir.path().join("device");
    std::fs::create_dir(&base).expect("directory");
    let spec = PoolSpec {
        rank_paths: vec![base.clone()],
        ..spec("tank", 2)
    };
    let pool = create(&home, &spec).expect("created");
    // As if creation had been killed before the final rename: label taken, directory staged.
    let staging = pool.dir.with_file_name(format!("{}.new", pool.uuid));
    std::fs::rename(&pool.dir, &staging).expect("renamed");
    let again = create(&home, &spec).expect("created again");
    assert_ne!(again.uuid, pool.uuid);
    assert!(!staging.exists());
    assert_eq!(std::fs::read_dir(&base).expect("device").count(), 1);
}

#[test]
fn a_held_pool_is_not_destroyed_without_force() {
    let home = home();
    let pool = create(&home, &spec("tank", 1)).expect("created");
    let file = AttachFile::open(&pool.dir).expect("opened");
    assert_eq!(file.holder(), Ok(None));
    file.hold().expect("held");
    assert_eq!(file.holder(), Ok(None), "one's own lock is none");
    let process = std::process::id();
    let other = AttachFile::open(&pool.dir).expect("opened");
    assert_eq!(other.holder(), Ok(Some(process)));
    drop(other);
    assert_eq!(
        file.holder(),
        Ok(None),
        "closing another file releases nothing"
    );
    let refused = home.root.destroy_pool(&ident("tank"), false);
    assert_eq!(
        refused,
        Err(SystemError::Attached {
            pool: "tank".to_owned(),
            process
        })
    );
    home.root
        .destroy_pool(&ident("tank"), true)
        .expect("forced");
    assert!(matches!(
        file.lock(),
        Err(SystemError::Io {
            errno: Errno::ENOENT,
            ..
        })
    ));
}

/// One that was killed at it leaves the rest to the next command: shared memory too.
#[test]
fn a_destruction_that_was_cut_is_finished() {
    let home = home();
    let pool = create(&home, &spec("tank", 1)).expect("created");
    let file = AttachFile::open(&pool.dir).expect("opened");
    let path = home.dir.path().join("arena");
    let mut arena = vec![0; 1 << 16];
    let mut put =
        |at: u64, bytes: &[u8]| arena[at as usize..][..bytes.len()].copy_from_slice(bytes);
    put(header::MAGIC, &MAGIC.to_le_bytes());
    for (at, word) in [header::HOME_MARK, header::HOME_MARK + 8]
        .into_iter()
        .zip(file.mark())
    {
        put(at, &word.to_le_bytes());
    }
    put(header::HOME_DIR, pool.dir.as_os_str().as_bytes());
    std::fs::write(&path, &arena).expect("arena");
    let lock = file.lock().expect("locked");
    file.write(&lock, &Authority::here(0, &path))
        .expect("written");
    drop(lock);
    let doomed = pool.dir.with_file_name(format!("{}.old", pool.uuid));
    std::fs::rename(&pool.dir, &doomed).expect("renamed");
    create(&home, &spec("other", 1)).expect("created");
    assert!(!doomed.exists());
    assert!(!path.exists());
}

#[test]
fn attaching_follows_the_authority() {
    let home = home();
    let pool = create(&home, &spec("tank", 1)).expect("created");
    let first = AttachFile::open(&pool.dir).expect("opened");
    let lock = first.lock().expect("locked");
    assert_eq!(first.standing(&lock, &mut |_| true), Ok(Standing::Cold));
    let authority = Authority::here(0xabc, Path::new("/dev/shm/no such arena"));
    first.write(&lock, &authority).expect("written");
    first.hold().expect("held");
    drop(lock);

    let second = AttachFile::open(&pool.dir).expect("opened");
    let lock = second.lock().expect("locked");
    assert_eq!(
        second.standing(&lock, &mut |_| true),
        Ok(Standing::Warm(Authority {
            mark: second.home().mark,
            ..authority.clone()
        }))
    );
    let refused = second.standing(&lock, &mut |_| false);
    assert!(
        matches!(refused, Err(SystemError::OtherRuntime { .. })),
        "{refused:?}"
    );
    drop(first);
    assert_eq!(second.standing(&lock, &mut |_| false), Ok(Standing::Cold));
    let older = Authority {
        boot: "another boot".to_owned(),
        ..authority
    };
    second.write(&lock, &older).expect("written");
    assert_eq!(second.standing(&lock, &mut |_| true), Ok(Standing::Cold));
    std::fs::write(pool.dir.join("attach"), b"DAOS-EMBEDDED-ATT").expect("torn");
    assert_eq!(second.read(), None);
    assert_eq!(second.standing(&lock, &mut |_| true), Ok(Standing::Cold));
    let third = AttachFile::open(&pool.dir).expect("opened");
    third.hold().expect("held");
    let refused = second.standing(&lock, &mut |_| true);
    assert!(
        matches!(refused, Err(SystemError::AttachDamaged { .. })),
        "{refused:?}"
    );
}

fn any_map() -> impl Strategy<Value = PoolMap> {
    let state = proptest::sample::select(vec![RankState::UpIn, RankState::Down, RankState::New]);
    let name = proptest::collection::vec(any::<u8>().prop_filter("no NUL", |b| *b != 0), 1..9);
    let ranks = proptest::collection::vec((state, name), 1..9);
    let attrs = proptest::collection::vec(
        (".{1,6}", proptest::collection::vec(any::<u8>(), 0..9)),
        0..4,
    );
    (
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<i64>(),
        1u16..,
        ranks,
        attrs,
    )
        .prop_map(
            |(uuid, size_bytes, created_ns, targets_per_rank, ranks, attrs)| PoolMap {
                uuid: PoolId::from_random(uuid),
                label: Label::new("tank").expect("label"),
                version: size_bytes ^ 1,
                size_bytes,
                created_ns,
                reserved: size_bytes % 2 == 0,
                targets_per_rank,
                ranks: (0..)
                    .zip(ranks)
                    .map(|(rank, (state, name))| {
                        let name: std::ffi::OsString =
                            std::os::unix::ffi::OsStringExt::from_vec(name);
                        MapRank {
                            rank,
                            state,
                            path: Path::new("/").join(name),
                        }
                    })
                    .collect(),
                attrs,
            },
        )
}

proptest! {
    #[test]
    fn maps_round_trip(map in any_map()) {
        prop_assert_eq!(PoolMap::decode(&map.encode(), Path::new("x")), Ok(map));
    }

    #[test]
    fn a_flipped_bit_is_never_accepted(map in any_map(), at in any::<usize>(), bit in 0..8) {
        let mut bytes = map.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        match PoolMap::decode(&bytes, Path::new("x")) {
            // Case of the checksum's digits and the last line feed carry no meaning.
            Ok(read) => prop_assert_eq!(read, map),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(PoolMap::decode(&bytes, Path::new("x")).is_err());
    }
}

#[test]
fn a_pool_is_attached_kept_warm_released_and_rebuilt() {
    let home = home();
    let spec = PoolSpec {
        size_bytes: 64 << 20,
        ..spec("tank", 2)
    };
    let made = create(&home, &spec).expect("created");
    let pool = made.attach().expect("attached");
    assert!(std::ptr::eq(pool, made.attach().expect("the same handle")));
    let (again, opened) = home.root.open_pool(&ident("tank")).expect("opened");
    assert!(std::ptr::eq(pool, opened));
    assert_eq!(again, made);
    assert_eq!(pool.usage().expect("usage").total, 64 << 20);
    let authority = AttachFile::open(&made.dir)
        .expect("opened")
        .read()
        .expect("written");
    assert_eq!(authority.instance, pool.instance());
    assert_eq!(authority.arena, pool.arena_path());
    let refused = home.root.destroy_pool(&ident("tank"), false);
    assert!(
        matches!(refused, Err(SystemError::Attached { .. })),
        "{refused:?}"
    );
    assert!(matches!(made.release(), Err(SystemError::Attached { .. })));
    home.root
        .destroy_pool(&ident("tank"), true)
        .expect("forced");
    assert!(!authority.arena.exists());
}

#[test]
fn creations_beside_destructions() {
    let home = home();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let home = &home;
            scope.spawn(move || {
                for round in 0..8 {
                    let label = format!("pool{thread}");
                    create(home, &spec(&label, 1))
                        .unwrap_or_else(|error| panic!("{label}, round {round}: {error}"));
                    let name = ident(&label);
                    home.root.destroy_pool(&name, false).expect("destroyed");
                }
            });
        }
    });
}
