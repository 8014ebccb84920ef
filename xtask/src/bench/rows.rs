//! The judged rows: which figure of the measurement must keep which floor, and which goal it should reach.

/// Which direction is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// How the figure is made from the measured values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Mount divided by tmpfs.
    Ratio,
    /// Mount minus tmpfs, divided by the given number.
    Added(u32),
    /// Mount divided by another row of the same place.
    Speedup,
    /// Mount divided by the disk's file system.
    OfDisk,
    /// The value itself, divided by the given number.
    Itself(u32),
    /// The value itself.
    Value,
}

/// One judged row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The mount it is measured in.
    pub(crate) place: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) kind: Figure,
    /// The row a speed-up refers to.
    pub(crate) base: Option<&'static str>,
    pub(crate) better: Better,
    pub(crate) floor: f64,
    pub(crate) goal: f64,
    /// Printed behind the figure, the floor and the goal.
    pub(crate) sign: &'static str,
}

impl Row {
    /// The figure the floor and the goal speak about.
    pub(crate) fn figure(
        &self,
        value: Option<f64>,
        tmpfs: Option<f64>,
        disk: Option<f64>,
        base: Option<f64>,
    ) -> Option<f64> {
        let value = value?;
        match self.kind {
            Figure::Ratio => Some(value / tmpfs?),
            Figure::Added(unit) => Some((value - tmpfs?) / f64::from(unit)),
            Figure::Speedup => Some(value / base?),
            Figure::OfDisk => Some(value / disk?),
            Figure::Itself(unit) => Some(value / f64::from(unit)),
            Figure::Value => Some(value),
        }
    }
}

const fn time(name: &'static str, place: &'static str, floor: f64, goal: f64) -> Row {
    let (kind, base) = (Figure::Ratio, None);
    Row {
        name,
        place,
        unit: "ns",
        kind,
        base,
        better: Better::Less,
        floor,
        goal,
        sign: "x",
    }
}

const fn bandwidth(name: &'static str, place: &'static str, floor: f64, goal: f64) -> Row {
    let (kind, base) = (Figure::Ratio, None);
    Row {
        name,
        place,
        unit: "MB/s",
        kind,
        base,
        better: Better::More,
        floor,
        goal,
        sign: "x",
    }
}

const fn added(
    name: &'static str,
    unit: &'static str,
    divisor: u32,
    floor: f64,
    goal: f64,
    sign: &'static str,
) -> Row {
    let kind = Figure::Added(divisor);
    Row {
        name,
        place: "rp3",
        unit,
        kind,
        base: None,
        better: Better::Less,
        floor,
        goal,
        sign,
    }
}

const fn speedup(name: &'static str, base: &'static str, floor: f64, goal: f64) -> Row {
    let (kind, base) = (Figure::Speedup, Some(base));
    Row {
        name,
        place: "rp3",
        unit: "op/s",
        kind,
        base,
        better: Better::More,
        floor,
        goal,
        sign: "x",
    }
}

/// What something costs when there is much of it, compared with little.
const fn growth(name: &'static str, base: &'static str) -> Row {
    Row {
        name,
        place: "rp3",
        unit: "ns",
        kind: Figure::Speedup,
        base: Some(base),
        better: Better::Less,
        floor: 1.5,
        goal: 1.2,
        sign: "x",
    }
}

/// A figure of the layers below the preload, the same wherever it is measured.
const fn value(name: &'static str, unit: &'static str, limit: f64) -> Row {
    Row {
        name,
        place: "dfs",
        unit,
        kind: Figure::Value,
        base: None,
        better: Better::Less,
        floor: limit,
        goal: limit,
        sign: "",
    }
}

/// What is durable costs as much as on the disk's file system.
const fn durable(name: &'static str, floor: f64, goal: f64) -> Row {
    Row {
        kind: Figure::OfDisk,
        ..time(name, "rp3", floor, goal)
    }
}

/// All judged rows.
pub(crate) const ROWS: &[Row] = &[
    time("stat_hot", "rp3", 0.5, 0.25),
    time("open_close", "rp3", 0.8, 0.4),
    time("create_close", "rp3", 0.8, 0.5),
    time("unlink", "rp3", 0.8, 0.4),
    time("readdir_entry", "rp3", 1.0, 0.3),
    time("read_4k", "rp3", 1.0, 0.5),
    time("write_4k", "sx", 1.0, 0.5),
    bandwidth("write_1m_mbs", "sx", 1.3, 3.0),
    bandwidth("read_1m_mbs", "sx", 1.3, 2.0),
    added("exec_untouched", "us", 1000, 0.45, 0.25, "ms"),
    added("exec_used", "us", 1000, 1.2, 0.6, "ms"),
    added("foreign_read", "ns", 1, 10.0, 5.0, "ns"),
    added("foreign_write", "ns", 1, 10.0, 5.0, "ns"),
    speedup("own_dirs_2_rate", "own_dirs_1_rate", 1.6, 1.9),
    speedup("shared_dir_2_rate", "shared_dir_1_rate", 0.9, 1.3),
    speedup("shared_dir_4_rate", "shared_dir_1_rate", 0.9, 1.3),
    growth("entries_100000_create", "entries_1000_create"),
    growth("files_100000_create", "files_1000_create"),
    durable("fsync_append_4k", 3.0, 1.0),
    durable("sqlite_full", 1.5, 1.0),
    durable("git_commit", 1.5, 1.0),
    speedup("create_all_rate", "create_median_rate", 0.8, 0.95),
    Row {
        kind: Figure::Itself(1_000_000),
        sign: "ms",
        ..time("create_worst", "rp3", 5.0, 1.0)
    },
    value("attach", "us", 300.0),
    value("arena_per_file", "B", 400.0),
    value("recovery", "s per GB of log", 2.0),
    value("recovery_power", "s per GB of log", 2.0),
];
