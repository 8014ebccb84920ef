//! `daos container create`: what the user asks for, what the engine serves, what is recorded.

use crate::container_view::ContainerJson;
use crate::names::env;
use crate::output::{Failure, Reply, Tool};
use crate::session::{Opened, group_name, now_ns, open_pool, user_name};
use crate::usage::bad_flag;
use clap::Args;
use daos_types::{
    Checksum, ContainerMeta, ContainerProps, ContainerType, Dedup, Der, GROUPS_MAX, Label,
    ObjectClass, parse_size, split_pairs,
};
use engine::ContainerInfo;
use engine::system::PoolDescriptor;

/// Chunk size of files when none is given, in bytes.
const CHUNK_DEFAULT: u64 = 1 << 20;

/// Arguments of `container create`.
#[derive(Args, Debug, Default)]
pub(crate) struct CreateArgs {
    /// Pool label or UUID (default: $DAOS_POOL), container label
    #[arg(value_name = "pool label")]
    positions: Vec<String>,
    /// Pool label or UUID
    #[arg(long = "pool", value_name = "POOL")]
    pool: Option<String>,
    /// Container label
    #[arg(
        long = "cont",
        alias = "container",
        alias = "label",
        value_name = "LABEL"
    )]
    cont: Option<String>,
    /// container type
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// container namespace path
    #[arg(short = 'p', long)]
    path: Option<String>,
    /// container chunk size
    #[arg(short = 'z', long)]
    chunk_size: Option<String>,
    /// default object class
    #[arg(short = 'o', long)]
    oclass: Option<String>,
    /// default directory object class
    #[arg(short = 'd', long)]
    dir_oclass: Option<String>,
    /// default file object class
    #[arg(short = 'f', long)]
    file_oclass: Option<String>,
    /// container hints, for example file:max,dir:single
    #[arg(short = 'H', long)]
    hints: Option<String>,
    /// container properties, key:value, comma separated
    #[arg(long)]
    properties: Option<String>,
    /// DFS consistency mode: relaxed or balanced
    #[arg(short = 'M', long)]
    mode: Option<String>,
    /// input file containing ACL
    #[arg(short = 'A', long)]
    acl_file: Option<String>,
    /// group who will own the container (group@[domain])
    #[arg(short = 'g', long)]
    group: Option<String>,
    /// user-defined attributes, key:value, comma separated
    #[arg(short = 'a', long)]
    attrs: Option<String>,
}

/// The request after parsing, before the pool is known.
struct Request {
    pool: String,
    meta: ContainerMeta,
    chunk_bytes: u64,
    class: Option<ObjectClass>,
    dir_class: Option<ObjectClass>,
    file_class: Option<ObjectClass>,
}

fn class_flag(value: &Option<String>, flag: &str) -> Result<Option<ObjectClass>, Failure> {
    let parsed = value.as_deref().map(str::parse).transpose();
    parsed.map_err(|bad: daos_types::BadClass| bad_flag(flag, "ObjClassFlag", bad))
}

fn invalid(why: impl std::fmt::Display) -> Failure {
    Failure::der("failed to create container", Der::Inval).because(why)
}

impl CreateArgs {
    fn names(&mut self) -> Result<(String, Option<String>), Failure> {
        let mut positions = std::mem::take(&mut self.positions).into_iter();
        let pool = self
            .pool
            .take()
            .or_else(|| positions.next())
            .or_else(|| env("DAOS_POOL"));
        let pool = pool.ok_or_else(|| {
            Failure::plain("no pool ID or dfs path supplied")
                .because("name a pool or set DAOS_POOL; see: daos pool list")
        })?;
        let label = positions.next();
        if let Some(extra) = positions.next() {
            return Err(Failure::usage(format!("unexpected argument {extra:?}")));
        }
        if label.is_some() && self.cont.is_some() {
            return Err(Failure::usage("can't supply label arg and --cont"));
        }
        Ok((pool, label.or_else(|| self.cont.take())))
    }

    fn props(&self, label: Option<String>) -> Result<ContainerProps, Failure> {
        let plain = |bad: daos_types::PropError| Failure::plain(bad.to_string());
        let mut props = ContainerProps::default();
        if let Some(text) = &self.properties {
            for (key, value) in split_pairs(text).map_err(plain)? {
                props.set(&key, &value).map_err(plain)?;
            }
        }
        if let Some(label) = label {
            if props.label.is_some() {
                return Err(Failure::plain(
                    "can't supply label arg and --properties label:",
                ));
            }
            let label = Label::new(&label).map_err(|bad| Failure::plain(bad.to_string()))?;
            props.label = Some(label);
        }
        Ok(props)
    }

    fn request(mut self) -> Result<Request, Failure> {
        let (pool, label) = self.names()?;
        if self.path.is_some() {
            return Err(Failure::usage(
                "--path is not served yet; name the container instead",
            ));
        }
        if self.acl_file.is_some() {
            return Err(Failure::usage(
                "--acl-file is not served by the embedded engine; leave it out",
            ));
        }
        match self.mode.as_deref() {
            None | Some("relaxed" | "balanced") => {}
            Some(other) => {
                let why = format!("unknown consistency mode {other:?} (relaxed or balanced)");
                return Err(bad_flag("-M, --mode", "ConsModeFlag", why));
            }
        }
        let kind = match self.kind.as_deref() {
            None => ContainerType::Unknown,
            Some(name) => ContainerType::parse(name).ok_or_else(|| {
                let why = format!("unknown container type {name:?}");
                bad_flag("-t, --type", "ContTypeFlag", why)
            })?,
        };
        let chunk_bytes = match self.chunk_size.as_deref() {
            None => 0,
            Some(text) => parse_size(text).map_err(|_| {
                let why = format!("invalid chunk-size {text:?}");
                bad_flag("-z, --chunk-size", "ChunkSizeFlag", why)
            })?,
        };
        let class = class_flag(&self.oclass, "-o, --oclass")?;
        let dir_class = class_flag(&self.dir_oclass, "-d, --dir-oclass")?;
        let file_class = class_flag(&self.file_oclass, "-f, --file-oclass")?;
        let now = now_ns();
        let mut meta = ContainerMeta {
            kind,
            props: self.props(label)?,
            object_class: class,
            hints: self.hints.clone().unwrap_or_default(),
            owner: format!("{}@", user_name()),
            group: self
                .group
                .clone()
                .unwrap_or_else(|| format!("{}@", group_name())),
            created_ns: now,
            changed_ns: now,
            attrs: Vec::new(),
        };
        if let Some(text) = &self.attrs {
            for (key, value) in split_pairs(text).map_err(|bad| Failure::plain(bad.to_string()))? {
                meta.set_attr(&key, value.as_bytes());
            }
        }
        Ok(Request {
            pool,
            meta,
            chunk_bytes,
            class,
            dir_class,
            file_class,
        })
    }
}

/// What the engine does not serve yet, with what to write instead.
struct Unserved {
    parts: Vec<String>,
    cures: Vec<String>,
}

impl Unserved {
    fn add(&mut self, part: String, cure: impl Into<String>) {
        self.parts.push(part);
        self.cures.push(cure.into());
    }

    fn class(&mut self, flag: &str, class: Option<ObjectClass>) {
        if let Some(class) = class.filter(|class| class.is_erasure()) {
            let copies = class.fault_tolerance() + 1;
            let groups = if flag == "dir-oclass" { "1" } else { "X" };
            self.add(
                format!("--{flag}={class}"),
                format!("--{flag}=RP_{copies}G{groups}"),
            );
        }
    }
}

/// Refuses by name what would otherwise be accepted silently.
fn check_served(request: &Request) -> Result<(), Failure> {
    let mut unserved = Unserved {
        parts: Vec::new(),
        cures: Vec::new(),
    };
    unserved.class("oclass", request.class);
    unserved.class("dir-oclass", request.dir_class);
    unserved.class("file-oclass", request.file_class);
    let props = &request.meta.props;
    if props.cksum != Checksum::Off {
        unserved.add(format!("cksum:{}", props.cksum.name()), "cksum:off");
    }
    if props.srv_cksum {
        unserved.add("srv_cksum:on".to_owned(), "srv_cksum:off");
    }
    if props.dedup != Dedup::Off {
        unserved.add(format!("dedup:{}", props.dedup.name()), "dedup:off");
    }
    for (key, value) in [
        ("compression", &props.compression),
        ("encryption", &props.encryption),
    ] {
        if value != "off" {
            unserved.add(format!("{key}:{value}"), format!("{key}:off"));
        }
    }
    if unserved.parts.is_empty() {
        return Ok(());
    }
    let why = format!(
        "not served by the embedded engine yet: {}; write instead: {}",
        unserved.parts.join(", "),
        unserved.cures.join(", ")
    );
    Err(Failure::der("failed to create container", Der::NotSupported).because(why))
}

/// `file:` and `dir:` hints: how many groups an automatic class gets.
fn hinted_groups(hints: &str, of: &str) -> Result<Option<u16>, Failure> {
    let mut groups = None;
    for hint in hints.split(',').filter(|hint| !hint.is_empty()) {
        let found = match hint.split_once(':') {
            Some(("file" | "dir", "single")) => 1,
            Some(("file" | "dir", "max")) => GROUPS_MAX,
            _ => {
                let why = format!(
                    "unknown hint {hint:?}; valid: file:single, file:max, dir:single, dir:max"
                );
                return Err(invalid(why));
            }
        };
        if hint.split(':').next() == Some(of) {
            groups = Some(found);
        }
    }
    Ok(groups)
}

/// A class the user named must survive `rd_fac` failures and fit the pool.
fn check_class(
    class: ObjectClass,
    flag: &str,
    rd_fac: u8,
    pool: &PoolDescriptor,
) -> Result<(), Failure> {
    let ranks = pool.serving_ranks();
    let tolerance = class.fault_tolerance();
    if tolerance < u32::from(rd_fac) {
        return Err(invalid(format!(
            "{flag} {class} survives {tolerance} failures, rd_fac:{rd_fac} asks for {rd_fac}; \
             use RP_{}GX or lower rd_fac",
            rd_fac + 1
        )));
    }
    let size = class.group_size();
    if size > ranks {
        return Err(invalid(format!(
            "{flag} {class} needs {size} ranks, pool {} has {ranks}; use a class or rd_fac that \
             fits, or a pool of more ranks: dmg pool create --nranks {size}",
            pool.label
        )));
    }
    let groups = class.groups();
    let targets = pool.targets() - pool.disabled_targets();
    if groups != GROUPS_MAX && u32::from(groups) * size > targets {
        return Err(invalid(format!(
            "{flag} {class} needs {} targets, pool {} has {targets}; use a class with fewer groups, or \
             GX for as many as fit",
            u32::from(groups) * size,
            pool.label
        )));
    }
    Ok(())
}

/// The classes of new files and directories: as named, else automatic.
fn classes(
    request: &Request,
    pool: &PoolDescriptor,
) -> Result<(ObjectClass, ObjectClass), Failure> {
    let rd_fac = request.meta.props.rd_fac;
    let hints = &request.meta.hints;
    let pick = |named: Option<ObjectClass>, flag: &str, automatic: ObjectClass, of: &str| {
        let hinted = hinted_groups(hints, of)?;
        let (class, what) = match (named, request.class) {
            (Some(class), _) => (class, format!("--{flag}")),
            (None, Some(class)) => (class, "--oclass".to_owned()),
            (None, None) => {
                let class = hinted.map_or(automatic, |groups| automatic.with_groups(groups));
                (class, format!("rd_fac:{rd_fac}, that is"))
            }
        };
        check_class(class, &what, rd_fac, pool).map(|()| class)
    };
    let domains = pool.serving_ranks();
    let file = ObjectClass::automatic_file(rd_fac, domains, false);
    // DAOS names the number of groups where there is room for one only.
    let file = if file.groups_on(pool.targets()) == 1 {
        file.with_groups(1)
    } else {
        file
    };
    let dir = ObjectClass::automatic_dir(rd_fac);
    Ok((
        pick(request.file_class, "file-oclass", file, "file")?,
        pick(request.dir_class, "dir-oclass", dir, "dir")?,
    ))
}

/// Makes a POSIX container with nothing chosen, as `fs copy` does for one that is missing.
pub(crate) fn create_plain(
    pool: &PoolDescriptor,
    label: Option<String>,
) -> Result<Opened, Failure> {
    let args = CreateArgs {
        positions: std::iter::once(pool.uuid.to_string())
            .chain(label)
            .collect(),
        kind: Some(ContainerType::Posix.name().to_owned()),
        ..CreateArgs::default()
    };
    make(args.request()?)
}

/// `container create`.
pub(crate) fn create(tool: Tool, args: CreateArgs) -> Result<Reply, Failure> {
    let opened = make(args.request()?)?;
    let json = ContainerJson::new(&opened.pool.uuid.to_string(), &opened.info, &opened.meta);
    let done = format!("Successfully created container {}\n", opened.info.uuid);
    tool.reply(done + &json.short_text(), &json)
}

fn make(request: Request) -> Result<Opened, Failure> {
    check_served(&request)?;
    let (pool, attached) = open_pool(&request.pool, "")?;
    let (file_class, dir_class) = classes(&request, &pool)?;
    let chunk_bytes = if request.chunk_bytes == 0 {
        CHUNK_DEFAULT
    } else {
        request.chunk_bytes
    };
    let chunk_size = u32::try_from(chunk_bytes).map_err(|_| {
        invalid(format!(
            "chunk size {chunk_bytes} is beyond {} bytes",
            u32::MAX
        ))
    })?;
    let blob = request.meta.encode().map_err(invalid)?;
    let label = request
        .meta
        .props
        .label
        .as_ref()
        .map_or("", Label::as_str)
        .to_owned();
    let spec = ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        label: label.clone(),
        index: 0,
        root: (0, 0),
        file_class: file_class.id(),
        dir_class: dir_class.id(),
        chunk_size,
        blob,
    };
    let info = attached.create_container(&spec).map_err(|error| {
        let failure = Failure::engine("failed to create container", &error);
        match error {
            engine::EngineError::Exists(_) => {
                let failure = Failure::der("failed to create container", Der::Exist);
                failure.because(format!(
                    "container {label} is in pool {} already; use another label or destroy it",
                    pool.label
                ))
            }
            _ => failure,
        }
    })?;
    let mut opened = Opened {
        pool,
        attached,
        info,
        meta: request.meta,
    };
    if opened.meta.kind == ContainerType::Posix {
        opened.ensure_root("failed to create container")?;
    }
    // From now on the log has its copies: a rank may be lost.
    let synced = opened.attached.sync_names();
    synced.map_err(|e| Failure::errno("failed to create container: cannot flush the log", e))?;
    Ok(opened)
}
